"""How well the next place is foretold: accuracy among the first k, and mean reciprocal rank."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_bounds(scores: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many places score higher than the true one, and how many tie with it (itself counted).

    Args:
        scores: ``(n, V)``, higher is likelier.
        truth: ``(n,)`` the true places.
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    mine = scores[np.arange(len(truth)), truth][:, None]
    return (scores > mine).sum(1), (scores == mine).sum(1)


def accuracy_at(k: int, higher: ArrayLike, tied: ArrayLike) -> float:
    """See the card ``acc@k``; from :func:`rank_bounds`."""
    higher, tied = np.asarray(higher), np.asarray(tied)
    return float(np.clip((k - higher) / tied, 0, 1).mean())


def mean_reciprocal_rank(higher: ArrayLike, tied: ArrayLike) -> float:
    """See the card ``mrr``; from :func:`rank_bounds`."""
    higher, tied = np.asarray(higher), np.asarray(tied)
    return float((1 / (higher + (tied + 1) / 2)).mean())
