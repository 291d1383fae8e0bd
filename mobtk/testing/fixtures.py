"""Small ready-made inputs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobtk.contracts import SpatialMapper
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
