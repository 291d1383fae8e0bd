"""What needs no deep model to tell hidden places and moments, beside which models are scored."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mobtk.contracts import Hidden, Mask, Numbers
from mobtk.data.trajectories import Trajectory
from mobtk.models.paths import local, told

Completion = Callable[[Trajectory, Hidden], Trajectory]
"""From a trajectory and what is hidden of it to the whole; what is hidden is not looked at, and what is absent stays so."""


SPEEDS = np.array([0.1, 0.3, 0.6, 1, 2, 4, 8, 12, 16, 24, 32])
"""Metres a second between the classes of a Markov chain of speeds."""


def fit_completions(train: Iterable[Trajectory], mask: Mask, *, seed: int = 0) -> dict[str, Completion]:
    """The baselines of a task, by name.

    Where places are hidden: ``stay put``, ``constant velocity``, ``markov`` (straight on, with the mean of the speeds that
    follow one of the last one's class: a chain of first order) and ``interpolation`` in time; hidden moments are then those
    of the pace at which the training split goes along what is shown. Where moments alone are: that ``constant pace``, and
    the ``usual pause``, the median between points that are there.

    Args:
        train: trajectories to learn from.
        mask: the task.
        seed: of what it hides of them.
    """
    rng = np.random.default_rng(seed)
    seconds, metres, places_hidden = 0.0, 0.0, False
    pauses: list[Numbers] = []
    next_speeds, times_seen = np.zeros(len(SPEEDS) + 1), np.zeros(len(SPEEDS) + 1)
    for t in train:
        if len(t) < mask.least:
            continue
        time, place = local(t)
        hidden = mask(time, place, rng)
        shown = ~(hidden.place | hidden.absent)
        seconds += time[shown][-1] - time[shown][0]
        metres += float(_way(place[shown]).sum())
        pauses.append(np.diff(time[~hidden.absent]))
        places_hidden |= bool(hidden.place.any())
        before, after, forward = _velocities(time, place)
        np.add.at(next_speeds, np.searchsorted(SPEEDS, before), np.where(before > 0, forward, after))
        np.add.at(times_seen, np.searchsorted(SPEEDS, before), 1)
    pace = seconds / metres if metres else 0.0
    pause = float(np.median(np.concatenate(pauses))) if pauses else 0.0
    if pauses and not places_hidden:
        clocks = {"constant pace": (pace, None), "usual pause": (0.0, pause)}
        return {name: lambda t, hidden, clock=clock: _completed(t, hidden, _stay, *clock) for name, clock in clocks.items()}
    usual = np.maximum(next_speeds, 0) / np.maximum(times_seen, 1)
    ways = {
        "stay put": _stay,
        "constant velocity": _go_on,
        "markov": lambda time, place, seen: _go_on_as_usual(time, place, seen, usual),
        "interpolation": _between,
    }
    return {name: lambda t, hidden, way=way: _completed(t, hidden, way, pace, None) for name, way in ways.items()}


def _velocities(time: Numbers, place: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Of each step but the last: its speed, that of the next one, and how much of that goes on in its direction."""
    lasted = np.diff(time)
    velocity = np.diff(place, axis=0) / np.where(lasted > 0, lasted, np.inf)[:, None]
    speed = np.linalg.norm(velocity, axis=1)
    forward = (velocity[:-1] * velocity[1:]).sum(1) / np.where(speed[:-1] > 0, speed[:-1], 1)
    return speed[:-1], speed[1:], forward


def _completed(
    trajectory: Trajectory,
    hidden: Hidden,
    way: Callable[[Numbers, Numbers, NDArray[np.bool_]], Numbers],
    pace: float,
    pause: float | None,
) -> Trajectory:
    """Whole, with hidden moments by seconds a metre, or by seconds a point."""
    there = np.flatnonzero(~hidden.absent)
    seen_place, seen_time = ~hidden.place[there], ~hidden.time[there]
    time, place = (part[there] for part in local(trajectory))
    place[~seen_place] = np.nan
    time[~seen_time] = np.nan
    if not seen_time.all():
        time = _timed(time, _way(place) * pace) if pause is None else _timed(time, np.full(len(time) - 1, pause))
    if not seen_place.all():
        place = np.where(seen_place[:, None], place, way(time, place, seen_place))
    return told(trajectory, hidden, place, time)


def _timed(time: Numbers, taken: Numbers) -> Numbers:
    """Hidden moments, from how long each step would take: between known ones by its share, after the last one so long.

    Where that is not known, each step takes as long as the usual one.
    """
    known = np.flatnonzero(~np.isnan(time))
    steps = np.diff(time[known]) / np.diff(known)
    usual = float(np.median(steps)) if len(steps) else 0.0
    taken = np.where(np.isnan(taken), usual, taken)
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


def _go_on_as_usual(time: Numbers, place: Numbers, seen: NDArray[np.bool_], usual: Numbers) -> Numbers:
    """Straight on from the last two known places, each step with the speed that usually follows the one before."""
    found = place.copy()
    heading, speed, last = np.zeros(2), 0.0, 0
    for i in range(1, len(time)):
        if seen[i]:
            lasted, step = time[i] - time[last], place[i] - place[last]
            way = float(np.linalg.norm(step))
            heading, speed = step / max(way, 1e-9), way / lasted if lasted > 0 else 0.0
            last = i
        else:
            speed = float(usual[np.searchsorted(SPEEDS, speed)])
            found[i] = found[i - 1] + heading * speed * (time[i] - time[i - 1])
    return found


def _between(time: Numbers, place: Numbers, seen: NDArray[np.bool_]) -> Numbers:
    """On the straight line, in time, between the known places before and after; after the last known one, that one."""
    return np.stack([np.interp(time, time[seen], place[seen, axis]) for axis in (0, 1)], -1)
