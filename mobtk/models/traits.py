"""What is known of a person before generation, as one vector."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mobtk.contracts import SpatialMapper
from mobtk.errors import BadInput
from mobtk.mappers.embedding import coordinates

CELL_TRAITS = ("home", "work")
"""Traits that are cells; they share one embedding table."""


@final
class TraitEmbedding(nn.Module):
    """One condition vector from traits such as home cell, work cell and movement cluster.

    As in M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314) it is the sum of a vector for the cells and one for
    each other trait. Different from it, cells have no table by default: a linear map reads where they are, side by side
    (:func:`place_features`), so that neighbours share what is learned of a district. A trait of -1 (unknown) adds
    nothing.

    Args:
        mapper: whose cells home and work are.
        sizes: number of values of each trait, in the order of the columns of ``traits``.
        width: ``D``.
        table: whether cells have a table after all, as in M-STAR: one for all traits that are cells, whose vectors stand
            side by side.
    """

    def __init__(self, mapper: SpatialMapper, sizes: Mapping[str, int], width: int, *, table: bool = False) -> None:
        super().__init__()
        self.names = tuple(sizes)
        self.cells = [i for i, name in enumerate(sizes) if name in CELL_TRAITS]
        self.others = [i for i, name in enumerate(sizes) if name not in CELL_TRAITS]
        self.place: nn.Module | None = None
        if self.cells and table:
            if width % len(self.cells):
                raise BadInput(f"a width of {width} has no equal parts for {len(self.cells)} cells; take a multiple")
            self.place = nn.Embedding(mapper.n_cells[0], width // len(self.cells))
            nn.init.normal_(self.place.weight, std=0.1)
        elif self.cells:
            self.register_buffer("where", place_features(mapper), persistent=False)
            self.place = nn.Linear(len(self.cells) * self.where.shape[1], width)
        self.tables = nn.ModuleList(nn.Embedding(sizes[self.names[i]], width) for i in self.others)
        for embed in self.tables:
            nn.init.normal_(embed.weight, std=0.1)

    def forward(self, traits: Int[Tensor, "B n"]) -> Float[Tensor, "B D"]:
        """One column a trait, in the order of ``sizes``."""
        known = (traits >= 0)[..., None]
        traits = traits.clamp(min=0).long()
        vectors: list[Tensor] = []
        if isinstance(self.place, nn.Embedding):
            vectors.append((self.place(traits[:, self.cells]) * known[:, self.cells]).flatten(1))
        elif self.place is not None:
            vectors.append(self.place((self.where[traits[:, self.cells]] * known[:, self.cells]).flatten(1)))
        for i, embed in zip(self.others, self.tables, strict=True):
            vectors.append(embed(traits[:, i]) * known[:, i])
        return torch.stack(vectors).sum(0)


def place_features(mapper: SpatialMapper) -> Float[Tensor, "cells f"]:
    """Where each finest cell is: its coordinates, and their sines and cosines at wavelengths that halve down to 2 cells."""
    xy = coordinates(mapper, 0)
    waves = [xy]
    wavelength = 8.0  # in units of the spread of the cells: about twice the map
    while wavelength > 2 * (12 / len(xy)) ** 0.5:
        waves += [torch.sin(2 * torch.pi * xy / wavelength), torch.cos(2 * torch.pi * xy / wavelength)]
        wavelength /= 2
    return torch.cat(waves, dim=1)
