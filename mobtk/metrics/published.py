"""The individual metrics as the authors' code of M-STAR computes them, faults and all, to compare with its tables.

Luo et al. 2025 (https://arxiv.org/abs/2512.07314), code of December 2025. What differs from the metrics of
:mod:`mobtk.metrics.individual` is on their cards.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobtk.geo import EARTH_KM
from mobtk.metrics.divergence import jensen_shannon


def _haversine(lat1: NDArray, lon1: NDArray, lat2: NDArray, lon2: NDArray) -> NDArray[np.float64]:
    lat1, lon1, lat2, lon2 = (np.radians(x) for x in (lat1, lon1, lat2, lon2))
    a = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(a))


def _jsd(real: NDArray[np.float64], generated: NDArray[np.float64], largest: float, edges: int) -> float:
    """Histograms over ``edges`` edges, so one bin fewer, without the top bin; what lies beyond is dropped."""
    grid = np.arange(0, largest, largest / edges)[:edges]
    a, b = (np.histogram(x, grid)[0] for x in (real, generated))
    return jensen_shannon(a, b)


def published_scores(
    real: ArrayLike, generated: ArrayLike, lat: ArrayLike, lon: ArrayLike, bins: int = 10_000
) -> dict[str, float]:
    """Distance, Radius, Duration and DailyLoc of ``(N, T)`` cells whose centres are given in degrees."""
    lat, lon = np.asarray(lat, float), np.asarray(lon, float)
    a, b = (_quantities(np.asarray(c, np.int64), lat, lon) for c in (real, generated))
    steps = np.asarray(real).shape[1]
    largest = {key: max(1e-12, float(a[key].max(initial=0.0))) for key in a}
    return {
        "distance": _jsd(a["distance"], b["distance"], largest["distance"], bins),
        "radius": _jsd(a["radius"], b["radius"], largest["radius"] ** 2, bins),
        "duration": _jsd(a["duration"], b["duration"], largest["duration"], steps),
        "dailyloc": _jsd(a["dailyloc"], b["dailyloc"], largest["dailyloc"], steps),
    }


def _quantities(cells: NDArray[np.int64], lat: NDArray, lon: NDArray) -> dict[str, NDArray[np.float64]]:
    y, x = lat[cells], lon[cells]
    jumps = _haversine(y[:, :-1], x[:, :-1], y[:, 1:], x[:, 1:])
    radius = _haversine(y, x, y.mean(1, keepdims=True), x.mean(1, keepdims=True)).mean(1)
    durations = []
    for row in cells:
        ends = np.flatnonzero(row[1:] != row[:-1])  # the last stay has no end and is not counted
        durations.append(np.diff(ends, prepend=-1))
    distinct = (np.diff(np.sort(cells, axis=1), axis=1) != 0).sum(1) + 1
    return {
        "distance": np.round(jumps.ravel(), 3),
        "radius": radius,
        "duration": np.concatenate(durations) / cells.shape[1],
        "dailyloc": distinct / cells.shape[1],
    }
