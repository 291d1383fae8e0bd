"""Errors of places and moments that were hidden; see the cards ``ade``, ``fde``, ``place_rmse`` and ``time_*``."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobtk.contracts import Hidden
from mobtk.data.trajectories import Trajectory
from mobtk.kernels import distance

PLACE_METRICS = ("ade", "fde", "place_rmse")
TIME_METRICS = ("time_mae", "time_rmse", "time_mape")


@dataclass
class PointErrors:
    """Errors of what was hidden, gathered trajectory by trajectory.

    Attributes:
        metres: for each trajectory, how far each hidden place was missed.
        seconds: the same for hidden moments, with their sign: too late is above 0.
        shares: the same as shares of the time since the first point.
    """

    metres: list[NDArray[np.float64]] = field(default_factory=list)
    seconds: list[NDArray[np.float64]] = field(default_factory=list)
    shares: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, truth: Trajectory, hidden: Hidden, told: Trajectory) -> None:
        """Count a trajectory: as it was, what was hidden of it, and what was told of all its points."""
        at = hidden.place
        if at.any():
            self.metres.append(distance(truth.lat[at], truth.lon[at], told.lat[at], told.lon[at]))
        at = hidden.time
        if at.any():
            late = (told.time[at] - truth.time[at]) / 1e6
            self.seconds.append(late)
            since = (truth.time[at] - truth.time[0]) / 1e6
            self.shares.append(late[since > 0] / since[since > 0])

    def scores(self) -> dict[str, float]:
        """Each metric of what was asked for."""
        found: dict[str, float] = {}
        if self.metres:
            pooled = np.concatenate(self.metres)
            found["ade"] = float(np.mean([m.mean() for m in self.metres]))
            found["fde"] = float(np.mean([m[-1] for m in self.metres]))
            found["place_rmse"] = float(np.sqrt(np.mean(pooled**2)))
        if self.seconds:
            late, shares = np.concatenate(self.seconds), np.concatenate(self.shares)
            found["time_mae"] = float(np.abs(late).mean())
            found["time_rmse"] = float(np.sqrt(np.mean(late**2)))
            found["time_mape"] = float(np.abs(shares).mean()) if len(shares) else float("nan")
        return found

    def by_step(self) -> list[float]:
        """Mean metres at the first, second, ... hidden place, as far as every trajectory has so many."""
        steps = min(map(len, self.metres), default=0)
        return [float(x) for x in np.mean([m[:steps] for m in self.metres], axis=0)] if steps else []


def skill(error: float, baseline: float) -> float:
    """``1 - error / baseline``: 0 is no better than the baseline, 1 is without error."""
    return 1 - error / baseline if baseline > 0 else float("nan")
