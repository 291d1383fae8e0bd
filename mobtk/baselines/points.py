"""What needs no deep model to tell hidden places and moments: stay put, constant velocity, interpolation, constant pace."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mobtk.contracts import Hidden, Mask, Numbers
from mobtk.data.points import MISSING
from mobtk.data.trajectories import Trajectory
from mobtk.geo import from_local
from mobtk.models.paths import local

Completion = Callable[[Trajectory, Hidden], Trajectory]
"""From a trajectory and what is hidden of it to the whole; what is hidden is not looked at, and what is absent stays so."""


def fit_completions(train: Iterable[Trajectory], mask: Mask, *, seed: int = 0) -> dict[str, Completion]:
    """The baselines of a task, by name. Moments are those of the pace at which the training split goes along what is shown.

    Args:
        train: trajectories to learn the pace from.
        mask: the task.
        seed: of what it hides of them.
    """
    rng = np.random.default_rng(seed)
    seconds, metres = 0.0, 0.0
    for t in train:
        if len(t) < mask.least:
            continue
        time, place = local(t)
        hidden = mask(time, place, rng)
        shown = ~(hidden.place | hidden.absent)
        seconds += time[shown][-1] - time[shown][0]
        metres += float(_way(place[shown]).sum())
    pace = seconds / metres if metres else 0.0
    ways = {"stay put": _stay, "constant velocity": _go_on, "interpolation": _between}
    return {name: lambda t, hidden, way=way: _completed(t, hidden, way, pace) for name, way in ways.items()}


def _completed(
    trajectory: Trajectory, hidden: Hidden, way: Callable[[Numbers, Numbers, NDArray[np.bool_]], Numbers], pace: float
) -> Trajectory:
    there = np.flatnonzero(~hidden.absent)
    seen_place, seen_time = ~hidden.place[there], ~hidden.time[there]
    time, place = (part[there] for part in local(trajectory))
    place[~seen_place] = np.nan
    time[~seen_time] = np.nan
    if not seen_time.all():
        time = _paced(time, place, pace)
    if not seen_place.all():
        place = np.where(seen_place[:, None], place, way(time, place, seen_place))
    n = len(trajectory)
    lat, lon, when = np.full(n, np.nan), np.full(n, np.nan), np.full(n, MISSING)
    lat[there], lon[there] = from_local(place, (float(trajectory.lat[0]), float(trajectory.lon[0])))
    when[there] = trajectory.time[0] + np.round(time * 1e6).astype(np.int64)
    return Trajectory(trajectory.user, when, lat, lon)


def _paced(time: Numbers, place: Numbers, pace: float) -> Numbers:
    """Hidden moments: between known ones by the share of the way, after the last one at a constant pace.

    Where the way is not known either, each step takes as long as the usual one.
    """
    known = np.flatnonzero(~np.isnan(time))
    steps = np.diff(time[known]) / np.diff(known)
    usual = float(np.median(steps)) if len(steps) else 0.0
    taken = _way(place) * pace
    taken[np.isnan(taken)] = usual
    clock = np.append(0.0, np.cumsum(taken))  # at that pace throughout; then bent through the known moments
    last = known[-1]
    inner = np.interp(clock[:last], clock[known], time[known])
    after = time[last] + clock[last:] - clock[last]
    return np.where(np.isnan(time), np.append(inner, after), time)


def _way(place: Numbers) -> Numbers:
    """Metres of each step."""
    way: Numbers = np.linalg.norm(np.diff(place, axis=0), axis=1)
    return way


def _before(seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The last point up to each one whose place is known; the first always is."""
    return np.maximum.accumulate(np.where(seen, np.arange(len(seen)), 0))


def _stay(time: Numbers, place: Numbers, seen: NDArray[np.bool_]) -> Numbers:
    """The last known place."""
    return place[_before(seen)]


def _go_on(time: Numbers, place: Numbers, seen: NDArray[np.bool_]) -> Numbers:
    """From the last known place on with the velocity between it and the one known before."""
    known = np.flatnonzero(seen)
    last = _before(seen)
    rank = np.searchsorted(known, last)
    earlier = known[np.maximum(rank - 1, 0)]
    apart = time[last] - time[earlier]
    speed = (place[last] - place[earlier]) / np.where(apart > 0, apart, np.inf)[:, None]
    return place[last] + speed * (time - time[last])[:, None]


def _between(time: Numbers, place: Numbers, seen: NDArray[np.bool_]) -> Numbers:
    """On the straight line, in time, between the known places before and after; after the last known one, that one."""
    return np.stack([np.interp(time, time[seen], place[seen, axis]) for axis in (0, 1)], -1)
