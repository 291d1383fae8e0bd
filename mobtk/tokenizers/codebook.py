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

    def lookup(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """The vectors of codes."""
        return self.table[codes]

    @torch.no_grad()
    def update(self, x: Float[Tensor, "B n d"], codes: Int[Tensor, "B n"]) -> None:
        """Move each code towards the mean of the vectors that chose it, and revive the dead ones. Where ``codes`` is ``V``,
        no code stands for the vector.

        Rank ``r`` of ``R`` holds every ``R``-th sequence of the batch from ``r`` on, as training deals them, so that the
        same vectors are revived whatever the number of processes.
        """
        x, codes = x.float(), codes.flatten()
        uses = torch.bincount(codes, minlength=len(self.table) + 1)[:-1].float()
        sums = self.sums.new_zeros(len(uses) + 1, x.shape[-1]).index_add_(0, codes, x.flatten(0, 1))[:-1]
        parallel = dist.is_available() and dist.is_initialized()
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
        picks = torch.randint(x.shape[0] * ranks * x.shape[1], (len(self.table),), device=x.device)
        if parallel:
            dist.broadcast(picks, 0)
        sequence, token = picks // x.shape[1], picks % x.shape[1]
        spare = x[sequence // ranks, token] * (sequence % ranks == rank)[:, None]
        if parallel:
            for statistic in (uses, sums, spare):
                dist.all_reduce(statistic)
        self.uses.lerp_(uses, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = (self.uses < self.revive)[:, None]
        self.sums.copy_(torch.where(dead, spare * self.revive, self.sums))
        self.uses.clamp_(min=self.revive)
        used = (self.uses > 1e-5)[:, None]  # without revival a code that nobody chooses stays where it is
        self.table.copy_(torch.where(used, self.sums / self.uses.clamp(min=1e-5)[:, None], self.table))
