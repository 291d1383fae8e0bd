"""Made-up walks: straight stretches with turns, for tries and for tests of models of points."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from mobtk.data.cut import split_rows
from mobtk.data.trajectories import Trajectories, TrajectoriesInfo
from mobtk.errors import BadInput
from mobtk.storage import PathLike

BEGIN = 1_704_103_200
"""Of the walks, in seconds since 1970: Monday 1 January 2024, 10 o'clock."""


def make_walks(
    out: PathLike, *, n: int = 10_000, seed: int = 0, origin: tuple[float, float] = (56.0, 8.0), replace: bool = False
) -> Trajectories:
    """Walks as the generator of Merten, Sakr and Dejaegere 2025 (https://arxiv.org/abs/2511.20610) means them, each with
    random numbers of its own; theirs come from a chain of seeds that returns after some two thousand walks.

    A walk has 10 to 48 points, 1 to 59 seconds apart, steps of one length of up to .001 degrees either way, one to five
    turns of up to 1.5 rad, and up to .0001 degrees of noise at each point. How long a step lasts cannot be foretold.

    Args:
        out: folder of the trajectories.
        n: walks.
        seed: of the random numbers.
        origin: latitude and longitude of the middle of the degree in which they begin.
        replace: replace an existing folder.
    """
    if n < 10:
        raise BadInput(f"made-up walks are 10 at least, so that there are some to test on, not {n}")
    rng = np.random.default_rng(seed)
    times, lats, lons = [], [], []
    for _ in range(n):
        points = int(rng.integers(10, 49))
        turns = rng.choice(np.arange(2, points - 2), size=int(rng.integers(1, 6)), replace=False)
        angles = np.zeros(points)
        angles[turns] = rng.uniform(-1.5, 1.5, len(turns))
        step = complex(*rng.uniform(-1e-3, 1e-3, 2)) * np.exp(1j * np.cumsum(angles))
        at = complex(*(np.array(origin) + rng.uniform(-0.5, 0.5, 2))) + np.append(0, np.cumsum(step[:-1]))
        noise = rng.uniform(0, 1e-4)
        lats.append(at.real + rng.uniform(-noise, noise, points))
        lons.append(at.imag + rng.uniform(-noise, noise, points))
        seconds = np.append(0, np.cumsum(rng.integers(1, 60, points - 1)))
        times.append((BEGIN + int(rng.integers(-1000, 1000)) + seconds) * 1_000_000)
    names = np.array([f"walk-{i:07d}" for i in range(n)])
    ends = np.array([t[-1] for t in times])
    split, _ = split_rows(names, ends, "user", (0.7, 0.1, 0.2), seed, "more walks")
    table = pa.table({"user": names, "split": split, "time": times, "lat": lats, "lon": lons})
    info = TrajectoriesInfo(
        name=f"{n} made-up walks", sources=["made by mobtk.data.walks"], licence="CC0-1.0", settings={"n": n, "seed": seed}
    )
    return Trajectories.write(Path(out), info, [table], replace=replace)
