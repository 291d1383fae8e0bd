"""How often a person is where at a time of day."""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
class TimeOfDay:
    """Each step drawn on its own from where a training user was at that time of day, on workdays or weekends apart.

    A generated person is a training user drawn at random.

    Args:
        cells: ``(rows, T)``; where ``T`` is a week, it begins on a Monday.
        users: ``(rows,)``.
        steps_per_day: steps of a day.
    """

    def __init__(self, cells: NDArray[np.int64], users: NDArray[Any], steps_per_day: int) -> None:
        self.steps = cells.shape[1]
        step = np.arange(self.steps)
        weekend = (step // steps_per_day >= 5) & (self.steps == 7 * steps_per_day)
        self.slot = step % steps_per_day + steps_per_day * weekend
        self.slots = int(self.slot.max()) + 1
        _, user = np.unique(users, return_inverse=True)
        self.user_of_row = user
        key = (user[:, None] * self.slots + self.slot).ravel()
        order = np.argsort(key, kind="stable")
        self.keys, self.cells = key[order], cells.ravel()[order]

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """See :class:`~mobtk.baselines.Baseline`."""
        user = self.user_of_row[rng.integers(len(self.user_of_row), size=n)]
        key = user[:, None] * self.slots + self.slot
        low, high = np.searchsorted(self.keys, key), np.searchsorted(self.keys, key, side="right")
        return self.cells[low + (rng.random(key.shape) * (high - low)).astype(np.int64)]
