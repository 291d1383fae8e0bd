"""Small ready-made inputs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobtk.contracts import Paths, SpatialMapper
from mobtk.mappers.grid import Grid
from mobtk.schedule import Schedule

STEPS = 24
WIDTH = 16
SCHEDULES = (
    Schedule.autoregressive(9),
    Schedule.coarse_to_fine([1, 3, 5], 5),
    Schedule.masked([True, False, True, True, False, False, True, False, False], passes=2),
    Schedule((9,)),
)


def points(n: int = 400, seed: int = 0) -> tuple[Any, Any]:
    """Latitudes and longitudes in a box of about 9 km by 9 km."""
    rng = np.random.default_rng(seed)
    return 39.9 + 0.08 * rng.random(n), 116.3 + 0.1 * rng.random(n)


def small_mapper() -> SpatialMapper:
    """A grid of 8 by 8 cells of 1 km, four levels."""
    return Grid("EPSG:32650", (440_000.0, 4_420_000.0), (8, 8))


def stays(mapper: SpatialMapper, n: int = 6, steps: int = STEPS, seed: int = 0) -> Tensor:
    """``(n, steps)`` cells of people who stay for some steps and then go elsewhere."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(mapper.n_cells[0], size=(n, steps))
    hold = rng.random((n, steps)) < 0.8
    hold[:, 0] = False
    source = np.maximum.accumulate(np.where(hold, 0, np.arange(steps)), axis=1)
    return torch.from_numpy(np.take_along_axis(cells, source, axis=1))


def walks(n: int = 6, points: int = 24, seed: int = 0) -> Paths:
    """``n`` walks of up to so many points, some of whose places and moments are hidden; one stands still for a while."""
    rng = np.random.default_rng(seed)
    heading = rng.uniform(0, 6, (n, 1)) + rng.normal(0, 0.3, (n, points - 1)).cumsum(1)
    stride = rng.uniform(5, 50, (n, 1)) * np.ones((n, points - 1))
    stride[0, 5:12] = 0
    steps = stride[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    place = np.concatenate([np.zeros((n, 1, 2)), steps.cumsum(1)], 1)
    time = np.concatenate([np.zeros((n, 1)), rng.uniform(1, 30, (n, points - 1)).cumsum(1)], 1)
    hidden = rng.random((2, n, points)) < 0.4
    hidden[:, :, 0] = False
    lengths = np.full(n, points)
    lengths[1:3] = [points // 2, points // 2 + 4][: n - 1]
    start = rng.uniform(0, 604_800, n)
    return Paths(*(torch.from_numpy(x) for x in (place, time, start, hidden[0], hidden[1], lengths)))
