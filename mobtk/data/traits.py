"""Traits read off a sequence: home, work, and a cluster of movement."""

import numpy as np
from numpy.typing import NDArray

from mobtk.contracts import SpatialMapper
from mobtk.geo import EARTH_KM


def home_and_work(
    cells: NDArray[np.int64], hour: NDArray[np.float64], weekend: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The most frequent cell at night (0-8 h), and on weekdays by day (10-18 h), as M-STAR takes them.

    Luo et al. 2025 (https://arxiv.org/abs/2512.07314). Where a sequence has no such step: for work, the days of the
    weekend; for either, all steps. Ties go to the lower cell.

    Args:
        cells: ``(N, T)``.
        hour: ``(N, T)`` or ``(T,)`` hour of the day, 0 to 24.
        weekend: of the same shape, whether the step is on Saturday or Sunday.
    """
    hour, weekend = np.broadcast_to(hour, cells.shape), np.broadcast_to(weekend, cells.shape)
    by_day = (hour >= 10) & (hour < 18)
    return _mode(cells, hour < 8), _mode(cells, by_day & ~weekend, by_day)


def _mode(cells: NDArray[np.int64], *choices: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Most frequent cell of each row among the steps of the first choice that has any, or among all steps."""
    if not len(cells):
        return np.zeros(0, np.int64)
    use = np.ones(cells.shape, bool)
    for choice in reversed(choices):
        use = np.where(choice.any(1, keepdims=True), choice, use)
    row, step = np.nonzero(use)
    size = int(cells.max()) + 1
    key, count = np.unique(row * size + cells[row, step], return_counts=True)
    best = np.lexsort((key, -count, key // size))
    rows, first = np.unique(key[best] // size, return_index=True)
    return (key[best] % size)[first[np.argsort(rows)]]


def movement(
    cells: NDArray[np.int64], home: NDArray[np.int64], work: NDArray[np.int64], mapper: SpatialMapper
) -> NDArray[np.float64]:
    """``(N, 5)`` how each sequence moves.

    Moves, different cells, share of steps at home, logarithm of the radius of gyration (km), and whether work is elsewhere
    than home.
    """
    if not len(cells):
        return np.zeros((0, 5))
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    y, x = np.radians(lat)[cells], (np.radians(lon) * np.cos(np.radians(lat)))[cells]
    radius = EARTH_KM * np.sqrt(y.var(1) + x.var(1))
    ordered = np.sort(cells, axis=1)
    return np.column_stack(
        [
            (cells[:, 1:] != cells[:, :-1]).sum(1),
            (ordered[:, 1:] != ordered[:, :-1]).sum(1),
            (cells == home[:, None]).mean(1),
            np.log(radius + 0.1),
            home != work,
        ]
    ).astype(float)


def group(features: NDArray[np.float64], train: NDArray[np.bool_], clusters: int, seed: int) -> NDArray[np.int64]:
    """Groups of sequences that move alike, by k-means on standardised features; fitted on the training rows only.

    (M-STAR's authors do not say how their movement clusters were made.)
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    mean, spread = features[train].mean(0), features[train].std(0)
    features = (features - mean) / np.where(spread > 0, spread, 1)
    distinct = len(np.unique(features[train], axis=0))
    with threadpool_limits(1):  # sums in threads are not the same twice
        model = KMeans(min(clusters, distinct), n_init=4, random_state=seed).fit(features[train])
        return np.asarray(model.predict(features), np.int64)
