"""Masks: what of a trajectory is hidden from a model, and so what it is asked.

The first point is never hidden. Shares are of the points after it; at least one of them is hidden.
"""

from typing import ClassVar, final

import numpy as np
import shapely
from numpy.typing import NDArray

from mobtk.contracts import Hidden, Mask, Numbers
from mobtk.errors import BadInput


@final
class RandomPoints(Mask):
    """Places of points here and there; when they were reached is known.

    Args:
        share: of the points.
    """

    def __init__(self, *, share: float = 0.5) -> None:
        self.share = _share("random", share)

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n = len(time)
        return _places(n, 1 + rng.permutation(n - 1)[: _count(n, self.share)])


@final
class Block(Mask):
    """Places of one stretch of points, with known ones on both sides.

    Args:
        share: of the points.
    """

    def __init__(self, *, share: float = 0.3) -> None:
        self.share = _share("block", share)

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n = len(time)
        length = min(_count(n, self.share), n - 2)
        first = int(rng.integers(1, n - length))
        return _places(n, np.arange(first, first + length))


@final
class Segments(Mask):
    """Places of several short stretches, whose lengths are Poisson's, as GLM hides text (Du et al. 2022,
    https://arxiv.org/abs/2103.10360).

    Args:
        share: of the points, all stretches together.
        mean: points of a stretch.
    """

    def __init__(self, *, share: float = 0.15, mean: float = 5.0) -> None:
        self.share, self.mean = _share("segments", share), mean
        if not mean >= 1:
            raise BadInput(f"mask 'segments': a stretch has a point at least, so its mean is not {mean:g}")

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n = len(time)
        hidden, left = np.zeros(n, bool), _count(n, self.share)
        while left > 0:
            length = min(left, 1 + int(rng.poisson(self.mean - 1)))
            first = int(rng.integers(1, n - length + 1))
            hidden[first : first + length] = True
            left = _count(n, self.share) - int(hidden.sum())
        return _places(n, np.flatnonzero(hidden))


@final
class KeyPoints(Mask):
    """Places of the points that carry the shape of a path: those that Douglas and Peucker's rule keeps, and others at random
    where these are fewer than asked for. As in UniTraj (Zhu et al. 2025, https://arxiv.org/abs/2411.03859).

    Args:
        share: of the points.
        tolerance: metres that a path without the others may be off.
    """

    def __init__(self, *, share: float = 0.5, tolerance: float = 10.0) -> None:
        self.share, self.tolerance = _share("key-points", share), tolerance
        if not tolerance > 0:
            raise BadInput(f"mask 'key-points': a tolerance is above 0 metres, not {tolerance:g}")

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n, count = len(time), _count(len(time), self.share)
        path = shapely.linestrings(np.column_stack([place, np.arange(n)]))
        kept = shapely.get_coordinates(path.simplify(self.tolerance, preserve_topology=False), include_z=True)[:, 2]
        key = np.setdiff1d(kept.astype(np.int64), [0])
        others = np.setdiff1d(np.arange(1, n), key)
        return _places(n, np.concatenate([rng.permutation(key), rng.permutation(others)])[:count])


@final
class Last(Mask):
    """Places of the last points: what comes next. At most half of the points.

    Args:
        points: how many.
        times: whether their moments are hidden, too.
    """

    def __init__(self, *, points: int = 12, times: bool = False) -> None:
        if points < 1:
            raise BadInput(f"mask 'last' hides a point at least, not {points}")
        self.points, self.times = points, times

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n = len(time)
        which = np.arange(n - min(self.points, n // 2), n)
        return _hidden(n, which, which if self.times else [])


@final
class KeepEvery(Mask):
    """Places of all points but every so many, and the last: the recovery of a path that was measured now and then.

    Args:
        points: one of so many is known.
    """

    def __init__(self, *, points: int = 8) -> None:
        if points < 2:
            raise BadInput(f"mask 'keep-every' keeps one of two points or fewer, not of {points}")
        self.points = points

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n = len(time)
        at = np.arange(n - 1)
        return _places(n, at[at % self.points != 0])


@final
class Modality(Mask):
    """All places, or all moments, but the first: one of the two from the other.

    Args:
        what: ``place``, ``time``, or ``either`` of them at random.
    """

    def __init__(self, *, what: str = "either") -> None:
        if what not in ("place", "time", "either"):
            raise BadInput(f"mask 'modality' hides each place or each time, or either, not each {what!r}")
        self.what = what

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        rest = np.arange(1, len(time))
        places = rng.random() < 0.5 if self.what == "either" else self.what == "place"
        return _hidden(len(time), rest, []) if places else _hidden(len(time), [], rest)


@final
class OriginDestination(Mask):
    """When the last point is reached, where only the first and the last are there."""

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        n = len(time)
        return _hidden(n, [], [n - 1], absent=np.arange(1, n - 1))


@final
class TravelTime(Mask):
    """When the points of a path are reached, of which only the first moment is known."""

    least: ClassVar[int] = 2

    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """See :class:`~mobtk.contracts.Mask`."""
        return _hidden(len(time), [], np.arange(1, len(time)))


def _share(name: str, share: float) -> float:
    if not 0 < share < 1:
        raise BadInput(f"mask {name!r} hides a share between 0 and 1, not {share:g}")
    return share


def _count(n: int, share: float) -> int:
    """How many of ``n`` points are hidden."""
    return max(1, round(share * (n - 1)))


def _places(n: int, which: NDArray[np.int64]) -> Hidden:
    return _hidden(n, which, [])


def _hidden(n: int, places: object, times: object, absent: object = ()) -> Hidden:
    found = Hidden(*(np.zeros(n, bool) for _ in range(3)))
    for flags, which in ((found.place, places), (found.time, times), (found.absent, absent)):
        flags[np.asarray(which, np.int64)] = True
    return found
