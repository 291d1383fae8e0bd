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
    """STM3's adaptive graph causal network (Chen et al. 2025), which needs no graph of the data.

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
        z = x.permute(2, 3, 4, 0, 1).reshape(n, d, scales, b * tokens)  # tokens last: all that follows runs along them
        reached = [z.flatten(1), *(power @ z.flatten(1) for power in self.powers(entity)[1:])]
        seen = torch.cat([r.view(n, d, -1) for r in reached], 1)  # (N, order D, Q B L)
        weights = torch.einsum("ns,skio->noki", entity, self.pool).flatten(2)
        z = torch.baddbmm((entity @ self.bias_pool)[..., None], weights, seen).view(n, d, scales, -1)
        z = _normed(z, self.norm_graph)
        q, k, v = (self._map(z, linear) for linear in (self.q, self.k, self.v))
        scores = (q.unsqueeze(3) * k.unsqueeze(2)).sum(1) / d**0.5  # (N, Q, Q, B L)
        if self.causal:
            finer = torch.ones(scales, scales, dtype=torch.bool, device=x.device).tril(-1)
            scores = scores.masked_fill(finer[..., None], float("-inf"))
        mixed = (scores.softmax(2).unsqueeze(1) * v.unsqueeze(2)).sum(3)
        z = _normed(z + self._map(mixed, self.out), self.norm)
        return z.view(n, d, scales, b, tokens).permute(3, 4, 0, 1, 2)

    @staticmethod
    def _map(z: Float[Tensor, "N D Q M"], linear: nn.Linear) -> Float[Tensor, "N D Q M"]:
        """A linear map of the second axis."""
        return torch.baddbmm(linear.bias[:, None], linear.weight.expand(len(z), -1, -1), z.flatten(2)).view_as(z)

    def powers(self, entity: Float[Tensor, "N S"]) -> list[Float[Tensor, "N N"]]:
        """Chebyshev polynomials of the adjacency."""
        adjacency = F.relu(entity @ entity.T).softmax(-1)
        found = [torch.eye(len(entity), device=entity.device), adjacency]
        while len(found) < self.order:
            found.append(2 * adjacency @ found[-1] - found[-2])
        return found[: self.order]


def _normed(z: Float[Tensor, "N D Q M"], norm: nn.LayerNorm) -> Float[Tensor, "N D Q M"]:
    """The layer norm over width and scales together, where these do not stand last."""
    z = z - z.mean((1, 2), keepdim=True)
    variance = z.square().mean((1, 2), keepdim=True)
    return z * torch.rsqrt(variance + norm.eps) * norm.weight[..., None] + norm.bias[..., None]
