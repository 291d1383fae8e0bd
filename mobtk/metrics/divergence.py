"""Histograms with edges from the real data, and the Jensen-Shannon divergence between them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms, in nats: 0 (equal) to ln 2 (disjoint).

    Lin 1991, https://doi.org/10.1109/18.61115. The counts are normalised first. A histogram without any count
    gives NaN.
    """
    counts = np.stack([np.asarray(p, float).ravel(), np.asarray(q, float).ravel()])
    if not counts.sum(1).all():
        return float("nan")
    shares = counts / counts.sum(1, keepdims=True)
    middle = np.where(shares.sum(0) > 0, shares.mean(0), 1.0)
    logs = np.log(np.where(shares > 0, shares / middle, 1.0))
    return float(max(0.0, (shares * logs).sum() / 2))


def linear_histogram(values: ArrayLike, largest: float, bins: int) -> NDArray[np.int64]:
    """Counts in ``bins`` equal bins over ``[0, largest]``, the last one closed, and one more for what lies above."""
    values = np.asarray(values, float)
    width = largest / bins if largest > 0 else 1.0
    index = np.minimum(values / width, bins - 1).astype(np.int64)
    index[values > largest] = bins
    return np.bincount(index, minlength=bins + 1)
