"""Canaries: made-up people planted in a training split, to see later whether a model remembers them."""

import numpy as np
from numpy.typing import NDArray

from mobtk.data.dataset import Dataset
from mobtk.data.tools import extend
from mobtk.errors import BadInput
from mobtk.storage import PathLike

CANARY = "canary-"
"""What the names of planted users begin with."""
HOLD = 6
"""Steps that a canary stays in a cell."""


def draw_canaries(n: int, steps: int, cells: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """``(n, steps)`` sequences that go to a random cell every few steps, as nobody does."""
    places = rng.integers(cells, size=(n, -(-steps // HOLD)))
    return np.repeat(places, HOLD, axis=1)[:, :steps].astype(np.int32)


def plant(
    dataset: Dataset, out: PathLike, *, users: int = 8, times: int = 1, seed: int = 0, replace: bool = False
) -> Dataset:
    """A copy of a dataset with canaries in its training split. ``mobtk data canaries`` does the same.

    Train on it, and :func:`mobtk.audit.audit` says how well they are remembered (Carlini et al. 2019,
    https://arxiv.org/abs/1802.08232).

    Args:
        dataset: a dataset.
        out: folder of the copy.
        users: canaries.
        times: how often each stands in the training split.
        seed: draws them.
        replace: replace an existing folder.
    """
    if users < 1 or times < 1:
        raise BadInput(f"canaries and their times are at least 1, not users={users}, times={times}")
    if np.char.startswith(dataset.users.astype(str), CANARY).any():
        raise BadInput(f"dataset {dataset.path} has canaries already; plant them in the one it was made from")
    rng = np.random.default_rng(seed)
    train = dataset.rows("train")
    cells = np.repeat(draw_canaries(users, dataset.info.steps, dataset.mapper().n_cells[0], rng), times, axis=0)
    names = np.repeat([f"{CANARY}{i:03}" for i in range(users)], times)
    like = rng.choice(train, users * times)  # traits and dates are those of somebody real
    return extend(dataset, out, names.tolist(), cells, like, settings={"canaries": [users, times, seed]}, replace=replace)
