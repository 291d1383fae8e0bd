"""Diffusion over a given graph."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import Mixer
from mobtk.errors import BadInput


@final
class GraphMixer(Mixer):
    """The diffusion convolution of DCRNN (Li et al. 2018, https://arxiv.org/abs/1707.01926, equation 2).

    A linear map of what arrives after each of 0 to ``hops`` random steps along the edges and against them, the same for
    each scale; after a layer norm, which theirs, inside a recurrent cell, does not have.

    Args:
        hops: random steps.
    """

    needs_graph: ClassVar[bool] = True

    def __init__(self, graph: Float[Tensor, "N N"] | None, width: int, scales: int, entity: int, *, hops: int = 2) -> None:
        super().__init__()
        if graph is None:
            raise BadInput("mixer 'graph' was given no graph")
        if hops < 1:
            raise BadInput(f"mixer 'graph' wants one hop or more, not {hops}")
        forth, back = (_random_walk(g) for g in (graph, graph.T))
        powers = [torch.linalg.matrix_power(walk, hop) for walk in (forth, back) for hop in range(1, hops + 1)]
        self.register_buffer("walks", torch.stack(powers), persistent=False)
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear((len(powers) + 1) * width, width)

    def forward(self, x: Float[Tensor, "B L N D Q"], entity: Float[Tensor, "N S"]) -> Float[Tensor, "B L N D Q"]:
        """See :class:`~mobtk.contracts.Mixer`."""
        h = self.norm(x.transpose(-1, -2))  # (B, L, N, Q, D)
        arrived = [h, *torch.einsum("knm,blmqd->kblnqd", self.walks, h)]
        return self.map(torch.cat(arrived, -1)).transpose(-1, -2)


def _random_walk(graph: Float[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """Chances of a step from each node (row) to each other; none where no edge leaves."""
    return graph / graph.sum(1, keepdim=True).clamp(min=1e-9)
