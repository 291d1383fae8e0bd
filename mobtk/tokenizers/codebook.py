"""A codebook learned by moving averages, whose dead codes come back to life."""

from typing import final

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn


@final
class Codebook(nn.Module):
    """Nearest-neighbour quantisation with an exponential moving average of what each code is chosen for.

    The rule of VQ-VAE's appendix A.1 (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937). A code whose
    average use falls below ``revive`` takes the place of a vector of the batch at hand, so that the codebook does
    not collapse on a few codes (as it does when it is learned by gradient). Statistics are summed over ranks.

    Args:
        codes: ``V``.
        width: length of a code.
        decay: share of the old averages kept at each step.
        revive: average uses per step below which a code is dead; 0 revives none.
        rate: cost of a nat of rareness, in squared units of the vectors over two; 0 takes the nearest code.
    """

    table: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, *, decay: float, revive: float, rate: float) -> None:
        super().__init__()
        self.decay, self.revive, self.rate = decay, revive, rate
        self.register_buffer("table", torch.randn(codes, width) * 0.1)
        self.register_buffer("uses", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def nearest(self, x: Float[Tensor, "*n d"]) -> Int[Tensor, "*n"]:
        """The code closest to each vector, by Euclidean distance (plus what its rareness costs), in float32."""
        bias = -0.5 * self.table.square().sum(-1)
        if self.rate:
            bias = bias + self.rate * ((self.uses + 1e-3) / (self.uses + 1e-3).sum()).log()
        with torch.autocast(x.device.type, enabled=False):
            return torch.addmm(bias, x.float().flatten(0, -2), self.table.T).argmax(-1).view(x.shape[:-1])

    @torch.no_grad()
    def update(self, x: Float[Tensor, "n d"], codes: Int[Tensor, "n"]) -> None:
        """Move each code towards the mean of the vectors that chose it, and revive the dead ones."""
        x = x.float()
        uses = torch.bincount(codes, minlength=len(self.table)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, x)
        spare = x[torch.randint(len(x), (len(self.table),), device=x.device)]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(uses)
            dist.all_reduce(sums)
            dist.broadcast(spare, 0)
        self.uses.lerp_(uses, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = (self.uses < self.revive)[:, None]
        self.sums.copy_(torch.where(dead, spare * self.revive, self.sums))
        self.uses.clamp_(min=self.revive)
        self.table.copy_(self.sums / self.uses.clamp(min=1e-5)[:, None])
