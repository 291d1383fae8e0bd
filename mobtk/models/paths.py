"""Trajectories of the earth <-> the metres and seconds that a completer reads."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mobtk.contracts import Hidden, Mask, Numbers, Paths
from mobtk.data.cut import MONDAY
from mobtk.data.moments import local_seconds
from mobtk.data.points import MISSING
from mobtk.data.trajectories import Trajectory
from mobtk.geo import from_local, to_local

WEEK = 7 * 86_400

Origin = tuple[float, float]


def local(trajectory: Trajectory, origin: Origin | None = None) -> tuple[Numbers, Numbers]:
    """``(n,)`` seconds since the first point, and ``(n, 2)`` metres from it, or from another origin."""
    origin = origin or (float(trajectory.lat[0]), float(trajectory.lon[0]))
    return (trajectory.time - trajectory.time[0]) / 1e6, to_local(trajectory.lat, trajectory.lon, origin)


def nothing_hidden(n: int) -> Hidden:
    """Of a trajectory of ``n`` points."""
    return Hidden(*(np.zeros(n, bool) for _ in range(3)))


def hide(trajectory: Trajectory, mask: Mask, rng: np.random.Generator) -> Hidden:
    """What a mask hides of a trajectory."""
    return mask(*local(trajectory), rng)


def collate(
    trajectories: Sequence[Trajectory],
    hidden: Sequence[Hidden],
    zone: str,
    *,
    multiple: int = 1,
    origin: Origin | None = None,
    device: torch.device | str = "cpu",
) -> Paths:
    """Trajectories as a batch, without their absent points; filled to the longest, or to a ``multiple``.

    Args:
        trajectories: of one point or more.
        hidden: what is hidden of each.
        zone: where local clocks are read.
        multiple: points of a patch.
        origin: latitude and longitude from which places are measured; of each its first point by default.
        device: of the batch.
    """
    kept = [~h.absent for h in hidden]
    lengths = np.array([k.sum() for k in kept])
    n = -(-int(lengths.max()) // multiple) * multiple
    b = len(trajectories)
    place, time = np.zeros((b, n, 2)), np.zeros((b, n))
    flags = np.zeros((2, b, n), bool)
    for i, (t, h, k, m) in enumerate(zip(trajectories, hidden, kept, lengths, strict=True)):
        seconds, metres = local(t, origin)
        time[i, :m], place[i, :m] = seconds[k], metres[k]
        flags[0, i, :m], flags[1, i, :m] = h.place[k], h.time[k]
    firsts = np.array([t.time[0] for t in trajectories])
    start = (local_seconds(firsts, zone) - MONDAY) % WEEK
    arrays = place, time, start.astype(np.float64), flags[0], flags[1], lengths
    return Paths(*(torch.from_numpy(a).to(device) for a in arrays))


def uncollate(
    place: Tensor, time: Tensor, trajectories: Sequence[Trajectory], hidden: Sequence[Hidden], origin: Origin | None = None
) -> list[Trajectory]:
    """What was told of trajectories, whole; what is absent has no place and no moment."""
    answers = zip(trajectories, hidden, place.cpu().numpy(), time.cpu().numpy(), strict=True)
    return [told(t, h, metres.astype(np.float64), seconds, origin) for t, h, metres, seconds in answers]


def told(trajectory: Trajectory, hidden: Hidden, place: Numbers, time: Numbers, origin: Origin | None = None) -> Trajectory:
    """What was told of the points that are there, as a whole trajectory: metres from the first point, or from another
    origin, and seconds since the first point; absent points have no place and no moment.
    """
    there = np.flatnonzero(~hidden.absent)
    n, m = len(trajectory), len(there)
    lat, lon, when = np.full(n, np.nan), np.full(n, np.nan), np.full(n, MISSING)
    lat[there], lon[there] = from_local(place[:m], origin or (float(trajectory.lat[0]), float(trajectory.lon[0])))
    when[there] = trajectory.time[0] + np.round(time[:m] * 1e6).astype(np.int64)
    return Trajectory(trajectory.user, when, lat, lon)


def turned(paths: Paths, rng: np.random.Generator) -> Paths:
    """The same walks, each turned by an angle of its own about the origin, and half of them seen in a mirror."""
    b = len(paths.place)
    angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, b)).to(paths.place.device)[:, None]
    east, north = paths.place.unbind(-1)
    east = east * torch.from_numpy(rng.choice([-1.0, 1.0], b)).to(paths.place.device)[:, None]
    cos, sin = angle.cos(), angle.sin()
    return replace(paths, place=torch.stack([cos * east - sin * north, sin * east + cos * north], -1))


def window(trajectory: Trajectory, points: int, rng: np.random.Generator, together: int = 1) -> Trajectory:
    """So many points of a trajectory in a row at most, from any multiple of ``together`` on."""
    spare = (len(trajectory) - points) // together
    first = int(rng.integers(spare + 1)) * together if spare > 0 else 0
    return trajectory[first : first + points]


def windows(trajectory: Trajectory, points: int, together: int = 1) -> list[Trajectory]:
    """All of a trajectory in pieces of so many points, or a few less, so that each begins at a multiple of ``together``;
    what is left at its end goes if it is less than half of one.
    """
    points = max(points // together, 1) * together
    pieces = [trajectory[i : i + points] for i in range(0, len(trajectory), points)]
    return pieces if len(pieces) == 1 or 2 * len(pieces[-1]) >= points else pieces[:-1]
