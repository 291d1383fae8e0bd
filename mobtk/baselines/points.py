"""What needs no deep model to tell hidden places and moments: stay put, constant velocity, interpolation, constant pace."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mobtk.contracts import Hidden, Numbers
from mobtk.data.trajectories import Trajectory
from mobtk.geo import from_local, to_local

Completion = Callable[[Trajectory, Hidden], Trajectory]
"""From a trajectory and what is hidden of it to the whole; what is hidden is not looked at."""


def fit_completions(train: Iterable[Trajectory]) -> dict[str, Completion]:
    """The baselines, by name. Moments are those of a constant pace that the training split has on the whole.

    Args:
        train: trajectories to learn the pace from.
    """
    seconds, metres = 0.0, 0.0
    for t in train:
        seconds += (t.time[-1] - t.time[0]) / 1e6
        metres += float(_way(to_local(t.lat, t.lon, (t.lat[0], t.lon[0]))).sum())
    pace = seconds / metres if metres else 0.0
    ways = {"stay put": _stay, "constant velocity": _go_on, "interpolation": _between}
    return {name: lambda t, hidden, way=way: _completed(t, hidden, way, pace) for name, way in ways.items()}


def _completed(
    trajectory: Trajectory, hidden: Hidden, way: Callable[[Numbers, Numbers, NDArray[np.bool_]], Numbers], pace: float
) -> Trajectory:
    origin = (float(trajectory.lat[0]), float(trajectory.lon[0]))
    there = np.flatnonzero(~hidden.absent)
    seen_place, seen_time = ~hidden.place[there], ~hidden.time[there]
    place = to_local(trajectory.lat[there], trajectory.lon[there], origin)
    place[~seen_place] = np.nan
    time = (trajectory.time[there] - trajectory.time[0]) / 1e6
    time[~seen_time] = np.nan
    if not seen_time.all():
        time = _paced(time, place, pace)
    if not seen_place.all():
        place = np.where(seen_place[:, None], place, way(time, place, seen_place))
    lat, lon, when = trajectory.lat.copy(), trajectory.lon.copy(), trajectory.time.copy()
    lat[there], lon[there] = from_local(place, origin)
    when[there] = trajectory.time[0] + np.round(time * 1e6).astype(np.int64)
    return Trajectory(trajectory.user, when, lat, lon)


def _paced(time: Numbers, place: Numbers, pace: float) -> Numbers:
    """Hidden moments: the last known one, and the way since at a constant pace; the usual step where the way is hidden."""
    known = np.flatnonzero(~np.isnan(time))
    steps = np.diff(time[known]) / np.diff(known)
    usual = float(np.median(steps)) if len(steps) else 0.0
    taken = _way(place) * pace
    taken[np.isnan(taken)] = usual
    filled = time.copy()
    for i in np.flatnonzero(np.isnan(time)):
        filled[i] = filled[i - 1] + taken[i - 1]
    return filled


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
