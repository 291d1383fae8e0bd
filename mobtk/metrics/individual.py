"""What a person's sequence looks like: distances, radius of gyration, durations of stays, places a day.

All four come from the stays (runs of one cell), of which there are ten times fewer than steps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobtk.geo import EARTH_KM
from mobtk.metrics.divergence import jensen_shannon, linear_histogram


@dataclass(frozen=True)
class Profile:
    """The individual quantities of a set of sequences.

    Args:
        moves: km of every move between consecutive steps.
        still: number of consecutive steps without a move.
        radius: ``(sequences,)`` radius of gyration, km.
        durations: ``(steps + 1,)`` number of stays of each length in steps.
        daily: number of days with each number of different cells.
        visits: ``(cells,)`` number of stays in each cell.
    """

    moves: NDArray[np.float64]
    still: int
    radius: NDArray[np.float64]
    durations: NDArray[np.int64]
    daily: NDArray[np.int64]
    visits: NDArray[np.int64]


def profile(sequences: ArrayLike, lat: ArrayLike, lon: ArrayLike, steps_per_day: int) -> Profile:
    """Measure sequences.

    Args:
        sequences: ``(N, T)`` cells.
        lat, lon: centres of the cells, degrees.
        steps_per_day: ``T`` of a day; where ``T`` is not a multiple of it, the last day is a short one.
    """
    sequences = np.ascontiguousarray(sequences)
    n, steps = sequences.shape
    cells = sequences.ravel()
    # pieces: stays, cut at midnight
    begins = np.empty((n, steps), bool)
    np.not_equal(sequences[:, 1:], sequences[:, :-1], out=begins[:, 1:])
    begins[:, ::steps_per_day] = True
    start = np.flatnonzero(begins)
    cell = cells[start].astype(np.int64)
    length = np.diff(start, append=len(cells))
    row, step = np.divmod(start, steps)
    first_of_row = step == 0
    arrives = np.empty(len(start), bool)  # the person was elsewhere the step before
    arrives[0] = False
    np.not_equal(cell[1:], cell[:-1], out=arrives[1:])
    arrives &= ~first_of_row

    xyz = _unit_vectors(lat, lon)
    at = np.flatnonzero(arrives)
    chord = np.linalg.norm(xyz[cell[at]] - xyz[cell[at - 1]], axis=1)
    moves = 2 * EARTH_KM * np.arcsin(np.minimum(1.0, chord / 2))

    rows = np.flatnonzero(first_of_row)
    centre = np.add.reduceat(xyz[cell] * length[:, None], rows, axis=0) / steps
    radius = EARTH_KM * np.sqrt(np.maximum(0.0, 1.0 - (centre**2).sum(1)))

    stays = np.flatnonzero(arrives | first_of_row)
    durations = np.bincount(np.diff(start[stays], append=len(cells)), minlength=steps + 1)
    return Profile(
        moves=moves,
        still=n * (steps - 1) - len(moves),
        radius=np.where(radius < 1e-3, 0.0, radius),  # below a metre is rounding
        durations=durations,
        daily=_distinct(row * steps + step // steps_per_day, cell),
        visits=np.bincount(cell[stays], minlength=len(xyz)),
    )


def _unit_vectors(lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
    phi, lam = np.radians(np.asarray(lat, float)), np.radians(np.asarray(lon, float))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def _distinct(day: NDArray[np.int64], cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many days (runs of equal ``day``) have 0, 1, 2, ... different cells.

    A piece counts unless an earlier one of its day has the same cell; a day has so few pieces that looking back
    one, two, three, ... pieces is cheaper than sorting.
    """
    new = np.ones(len(cell), bool)
    later = np.arange(1, len(cell))
    back = 1
    while len(later):
        later = later[day[later] == day[later - back]]
        new[later[cell[later] == cell[later - back]]] = False
        back += 1
        later = later[later >= back]
    starts = np.flatnonzero(np.diff(day, prepend=-1))
    return np.bincount(np.add.reduceat(new.astype(np.int64), starts))


def distance_jsd(real: Profile, generated: Profile, bins: int = 200) -> float:
    """See the card ``distance``."""
    largest = float(real.moves.max(initial=0.0))
    return jensen_shannon(*(_with_still(p, linear_histogram(p.moves, largest, bins)) for p in (real, generated)))


def _with_still(p: Profile, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[counts[0] + p.still], counts[1:]])


def radius_jsd(real: Profile, generated: Profile, bins: int = 100) -> float:
    """See the card ``radius``."""
    largest = float(real.radius.max(initial=0.0))
    return jensen_shannon(*(linear_histogram(p.radius, largest, bins) for p in (real, generated)))


def duration_jsd(real: Profile, generated: Profile) -> float:
    """See the card ``duration``."""
    return jensen_shannon(real.durations, generated.durations)


def dailyloc_jsd(real: Profile, generated: Profile) -> float:
    """See the card ``dailyloc``."""
    longest = max(len(real.daily), len(generated.daily))
    return jensen_shannon(*(np.pad(p.daily, (0, longest - len(p.daily))) for p in (real, generated)))


def rank_jsd(real: Profile, generated: Profile, ranks: int = 100) -> float:
    """See the card ``rank``."""
    a, b = (np.sort(p.visits)[::-1][:ranks] for p in (real, generated))
    return jensen_shannon(a, b)
