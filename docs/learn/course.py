"""What the chapters share: the data, where they keep what they make, and how they end."""

import getpass
import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

import mobtk
from mobtk.data.clean import Rules
from mobtk.data.formats import Reading

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MOBTK_COURSE", Path(tempfile.gettempdir()) / f"mobtk-course-{getpass.getuser()}"))
"""What chapters make, and pictures of those that run as scripts."""
BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#718096"

torch.set_num_threads(1)  # two on a busy machine may be twenty times slower than one
plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110, "savefig.bbox": "tight"}


def walks(max_speed: float | None = 200.0) -> mobtk.Trajectories:
    """GOAL: six minutes each of 805 people on foot and in cars, a point every five seconds (data/README.md), without
    points that cannot be reached at so many km/h.
    """
    here = WORK / ("goal" if max_speed else "goal-as-measured")
    if not here.exists():
        columns = Reading(user="row", time="t_cs", time_unit="10ms", lat="xy_dm_1", lon="xy_dm_0", crs="metres", scale=0.1)
        rules, licence = Rules(max_speed=max_speed), "CC BY 4.0, Amazon Science"
        mobtk.make_trajectories(HERE / "data" / "goal_gps.npz", here, reading=columns, rules=rules, licence=licence)
    return mobtk.Trajectories(here)


def metres(walk: "mobtk.data.trajectories.Trajectory") -> tuple[np.ndarray, np.ndarray]:
    """Seconds since the first point, and metres east and north of it: ``(n,)`` and ``(n, 2)``."""
    from mobtk.models.paths import local

    return local(walk)


def city(weeks: int = 1000) -> mobtk.Dataset:
    """The built-in city: weeks of 168 hours on a map of 900 cells of 1 km."""
    here = WORK / f"city-{weeks}"
    return mobtk.Dataset(here) if here.exists() else mobtk.prepare_city(here, weeks=weeks)


def finish(number: float, says: str, figure: Figure) -> None:
    """The end of a chapter: its number, and its picture, in the notebook or as a file."""
    print(f"\n{number:.4g} {says}")
    if "ipykernel" in sys.modules:
        plt.show()
        return
    WORK.mkdir(parents=True, exist_ok=True)
    picture = WORK / f"{Path(sys.argv[0]).stem}.png"
    figure.savefig(picture)
    print(f"picture: {picture}")
