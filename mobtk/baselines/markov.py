"""A Markov chain a person."""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
class MarkovChains:
    """First-order chains between cells, one fitted to each training user (Gambs et al. 2012, "Next place prediction
    using mobility Markov chains"). A generated person is a training user drawn at random whose chain runs anew from
    one of their first cells; where a cell was never left, they stay.

    Args:
        cells: ``(rows, T)``.
        users: ``(rows,)``.
        n_cells: of the finest level.
    """

    def __init__(self, cells: NDArray[np.int64], users: NDArray[Any], n_cells: int) -> None:
        self.steps, self.n_cells = cells.shape[1], n_cells
        _, user = np.unique(users, return_inverse=True)
        self.user_of_row, self.first = user, cells[:, 0]
        key = (user[:, None] * n_cells + cells[:, :-1]).ravel()
        order = np.argsort(key, kind="stable")
        self.keys, self.next = key[order], cells[:, 1:].ravel()[order]

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """See :class:`~mobtk.baselines.Baseline`."""
        row = rng.integers(len(self.first), size=n)
        out = np.empty((n, self.steps), np.int64)
        out[:, 0] = self.first[row]
        for t in range(1, self.steps):
            key = self.user_of_row[row] * self.n_cells + out[:, t - 1]
            low, high = np.searchsorted(self.keys, key), np.searchsorted(self.keys, key, side="right")
            pick = low + (rng.random(n) * (high - low)).astype(np.int64)
            out[:, t] = np.where(high > low, self.next[np.minimum(pick, len(self.next) - 1)], out[:, t - 1])
        return out
