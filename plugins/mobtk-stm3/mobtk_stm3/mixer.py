"""A graph that is learned, and scales that read coarser ones."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Mixer
from mobtk.errors import BadInput


@final
class AdaptiveGraph(Mixer):
    """STM3's adaptive graph causal network (Chen et al. 2025, section 4.3), which needs no graph of the data.

    A graph convolution as in AGCRN (Bai et al. 2020, https://arxiv.org/abs/2007.02842, equations 4 and 5): the adjacency
    is ``softmax(relu(E E^T))`` of the nodes' embeddings, the weights of a node come from a pool by its embedding,
    Chebyshev polynomials of the adjacency are its neighbourhoods. Then attention over the scales of a token, in which each
    reads itself and coarser ones: they come fine to coarse, so the mask is the upper triangle (in the paper, which counts
    the other way, the lower).

    Args:
        order: Chebyshev polynomials, the identity among them.
        causal: whether scales read coarser ones only; else all.
    """

    needs_graph: ClassVar[bool] = False

    def __init__(
        self,
        graph: Float[Tensor, "N N"] | None,
        width: int,
        scales: int,
        entity: int,
        *,
        order: int = 3,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if order < 1:
            raise BadInput(f"adaptive-graph wants a polynomial of order 1 or more, not {order}")
        self.order, self.causal = order, causal
        self.pool = nn.Parameter(torch.empty(entity, order, width, width))
        self.bias_pool = nn.Parameter(torch.zeros(entity, width))
        nn.init.xavier_uniform_(self.pool)
        self.norm_graph = nn.LayerNorm((width, scales))
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm((width, scales))

    def forward(self, x: Float[Tensor, "B L N D Q"], entity: Float[Tensor, "N S"]) -> Float[Tensor, "B L N D Q"]:
        """See :class:`~mobtk.contracts.Mixer`."""
        b, tokens, n, d, scales = x.shape
        nodes_first = x.permute(2, 0, 1, 4, 3).reshape(n, -1)  # (N, B L Q D)
        reached = [nodes_first, *(power @ nodes_first for power in self.powers(entity)[1:])]
        seen = torch.cat([r.view(n, -1, d) for r in reached], -1)  # (N, B L Q, order D)
        weights = torch.einsum("ns,skio->nkio", entity, self.pool).flatten(1, 2)
        z = torch.baddbmm((entity @ self.bias_pool)[:, None], seen, weights)
        z = self.norm_graph(z.view(n, b, tokens, scales, d).transpose(-1, -2)).transpose(-1, -2)  # (N, B, L, Q, D)
        q, k, v = self.q(z), self.k(z), self.v(z)
        scores = torch.einsum("...pd,...qd->...pq", q, k) / d**0.5
        if self.causal:
            finer = torch.ones(scales, scales, dtype=torch.bool, device=x.device).tril(-1)
            scores = scores.masked_fill(finer, float("-inf"))
        mixed = z + self.out(torch.einsum("...pq,...qd->...pd", scores.softmax(-1), v))
        return self.norm(mixed.transpose(-1, -2)).permute(1, 2, 0, 3, 4)

    def powers(self, entity: Float[Tensor, "N S"]) -> list[Float[Tensor, "N N"]]:
        """Chebyshev polynomials of the adjacency."""
        adjacency = F.relu(entity @ entity.T).softmax(-1)
        found = [torch.eye(len(entity), device=entity.device), adjacency]
        while len(found) < self.order:
            found.append(2 * adjacency @ found[-1] - found[-2])
        return found[: self.order]
