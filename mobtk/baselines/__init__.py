"""Baselines: simple generators fitted on the same training split, to judge a model by."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobtk.baselines.epr import ExplorationAndReturn
from mobtk.baselines.markov import MarkovChains
from mobtk.baselines.time_of_day import TimeOfDay
from mobtk.data.dataset import Dataset


class Baseline(Protocol):
    """Fitted in the constructor, from a dataset's training rows."""

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``(n, T)`` cells."""


def fit_baselines(dataset: Dataset) -> dict[str, Baseline]:
    """All of them, by the name they have in tables."""
    rows = dataset.rows("train")
    cells, users = dataset.cells[rows].astype(np.int64), dataset.users[rows]
    mapper = dataset.mapper()
    return {
        "Markov": MarkovChains(cells, users, mapper.n_cells[0]),
        "time of day": TimeOfDay(cells, users, dataset.info.steps_per_day),
        "EPR": ExplorationAndReturn(cells, mapper),
    }
