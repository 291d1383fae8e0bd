"""What the population as a whole does: who is where when, and who goes from where to where."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobtk.errors import BadInput


def _pair(real: ArrayLike, generated: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    real, generated = np.asarray(real), np.asarray(generated)
    if real.shape != generated.shape:
        raise BadInput(
            f"populations are compared with equally many sequences of equal length, not {real.shape} and "
            f"{generated.shape}; take samples of one size"
        )
    return real.astype(np.int64), generated.astype(np.int64)


def density_mape(real: ArrayLike, generated: ArrayLike, n_cells: int) -> float:
    """See the card ``density``. ``(N, T)`` cells each."""
    real, generated = _pair(real, generated)
    steps = real.shape[1]
    key = np.arange(steps) * n_cells
    a, b = (np.bincount((c + key).ravel(), minlength=steps * n_cells) for c in (real, generated))
    return _mean_error(np.repeat(np.arange(steps), n_cells), a, b, steps)


def flow_mape(real: ArrayLike, generated: ArrayLike, n_cells: int, *, stays: bool = False) -> float:
    """See the card ``flow``. ``stays`` counts staying in a cell as a flow, as the published code does."""
    real, generated = _pair(real, generated)
    step = np.arange(real.shape[1] - 1)
    counts = []
    for cells in (real, generated):
        a, b = cells[:, :-1], cells[:, 1:]
        key = (np.broadcast_to(step, a.shape) * n_cells + a) * n_cells + b
        counts.append(np.unique(key if stays else key[a != b], return_counts=True))
    (keys, real_counts), (other, other_counts) = counts
    if not len(keys):
        return float("nan")
    found = np.zeros(len(keys), np.int64)
    at = np.searchsorted(keys, other)
    hit = keys[np.minimum(at, len(keys) - 1)] == other
    found[at[hit]] = other_counts[hit]
    return _mean_error(keys // n_cells**2, real_counts, found, len(step))


def _mean_error(step: NDArray[np.int64], real: NDArray[np.int64], generated: NDArray[np.int64], steps: int) -> float:
    """Mean over steps of the mean relative error where there is something real."""
    there = real > 0
    error = np.abs(generated[there] - real[there]) / real[there]
    entries = np.bincount(step[there], minlength=steps)
    sums = np.bincount(step[there], weights=error, minlength=steps)
    return float((sums[entries > 0] / entries[entries > 0]).mean())


def common_part_of_commuters(real: ArrayLike, generated: ArrayLike, n_cells: int) -> float:
    """See the card ``cpc``. ``(N, T)`` cells each; 1 where neither side has a move."""
    flows = []
    for cells in _pair(real, generated):
        a, b = cells[:, :-1], cells[:, 1:]
        flows.append(np.unique((a * n_cells + b)[a != b], return_counts=True))
    (keys, x), (other, y) = flows
    total = x.sum() + y.sum()
    _, i, j = np.intersect1d(keys, other, assume_unique=True, return_indices=True)
    return float(2 * np.minimum(x[i], y[j]).sum() / total) if total else 1.0
