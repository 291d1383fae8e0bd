"""Cells as vectors that know their place on the map."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import SpatialMapper


def coordinates(mapper: SpatialMapper, level: int) -> Float[Tensor, "cells 2"]:
    """North and east of the centres of a level's cells, about 1 in size and of one meaning at every level.

    Degrees of latitude, and of longitude shrunk by its cosine, from the middle of the finest cells, divided by their
    larger spread (standard deviation).
    """
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    shrink = np.cos(np.radians(lat.mean()))
    finest = np.column_stack([lat, lon * shrink])
    lat, lon = mapper.decode(np.arange(mapper.n_cells[level]), level)
    here = np.column_stack([lat, lon * shrink]) - finest.mean(0)
    return torch.from_numpy(here / max(finest.std(0).max(), 1e-9)).float()


def cell_embedding(mapper: SpatialMapper, level: int, width: int) -> nn.Embedding:
    """A table for the cells of a level whose first two columns begin as their coordinates, the others near zero.

    Differences of vectors begin as displacements on the map, which few codes describe well, where those of unrelated
    random vectors would all be different.
    """
    table = nn.Embedding(mapper.n_cells[level], width)
    nn.init.normal_(table.weight, std=0.002)
    with torch.no_grad():
        table.weight[:, :2] = coordinates(mapper, level)
    return table
