"""One state space for all scales, and what experts of it ask of each other."""

import math
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.selective_scan import selective_scan
from mobtk.contracts import Backbone, State
from mobtk.errors import BadInput
from mobtk.schedule import Schedule
from mobtk_stm3.contrast import intended_contrast, published_contrast


@final
class MultiscaleMamba(Backbone):
    """STM3's multiscale Mamba (Chen et al. 2025, section 4.4): one selective scan, and a learned bias of the step per scale.

    Features fall into blocks, a scale each. A block has a convolution of its scale's length in front of Mamba's, and a bias
    ``omega`` on the step size of all its channels, so that scales may forget at different rates; ``B`` and ``C`` are read
    off all scales together. There is no norm and no residual: the layer adds it to its input.

    As ``published``, for comparison: projections mix the blocks, so that none carries its scale; ``omega`` is a number a
    channel, which the bias of the step says already; the scales' convolutions look ahead; step, ``B`` and ``C`` go through
    tanh; all weights are drawn as the authors' script draws them over Mamba's own (a median decay of .28
    instead of .92 a step). That setting reads a schedule of one group only.

    Args:
        scales: ``Q``, blocks of features.
        kernels: steps of each scale's convolution.
        states: ``N``.
        expand: inner width as a multiple of the width.
        window: steps of Mamba's own convolution.
        published: as above.
        contrast: weight of the contrastive loss among experts; 0 has none.
        temperature: of that loss.
        gamma: power of the distance of two scales by which their pair weighs in it.
    """

    uses_condition: ClassVar[bool] = False
    takes_scales: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        *,
        scales: int = 4,
        kernels: Sequence[int] = (1, 3, 5, 7),
        states: int = 16,
        expand: int = 2,
        window: int = 4,
        published: bool = False,
        contrast: float = 0.1,
        temperature: float = 0.1,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        if width % scales:
            raise BadInput(f"multiscale-mamba: a width of {width} has no equal parts for {scales} scales; take a multiple")
        self.kernels = tuple(kernels[i * len(kernels) // scales] for i in range(scales))  # where there are fewer scales
        inner = expand * width
        self.scales, self.states, self.window, self.rank = scales, states, window, math.ceil(width / 16)
        self.published, self.contrast, self.temperature, self.gamma = published, contrast, temperature, gamma
        blocks = 1 if published else scales
        self.in_proj = nn.Parameter(torch.empty(blocks, 2 * inner // blocks, width // blocks))
        self.scale_convs = nn.ModuleList(nn.Conv1d(inner // scales, inner // scales, k) for k in self.kernels)
        self.conv = nn.Conv1d(inner, inner, window, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.omega = nn.Parameter(torch.zeros(inner if published else scales))
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Parameter(torch.empty(blocks, width // blocks, inner // blocks))
        for weight in (self.in_proj, self.out_proj):
            nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)
        self._draw_as_published() if published else self._draw_steps()

    def _draw_steps(self) -> None:
        """Steps of .001 to .1 at first, as Mamba has them (Gu and Dao 2023, section 3.6)."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            dt = torch.exp(torch.empty_like(self.dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def _draw_as_published(self) -> None:
        for p in self.parameters():
            weight = p[0] if p is self.in_proj or p is self.out_proj else p  # matrices, of a single block
            nn.init.xavier_uniform_(weight) if weight.ndim > 1 else nn.init.uniform_(weight)

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
    ) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Backbone`."""
        if self.published and schedule.n_groups > 1:
            raise BadInput("multiscale-mamba as published looks ahead, so it reads what is known at once and nothing else")
        u, gate = self._in(x).chunk(2, dim=-1)
        u = F.silu(self._convolved(u.transpose(1, 2), state)).transpose(1, 2)
        read = self.x_proj(u)
        dt, B, C = (read.tanh() if self.published else read).split([self.rank, self.states, self.states], dim=-1)
        omega = self.omega if self.published else self.omega.repeat_interleave(u.shape[-1] // self.scales)
        delta = F.softplus(F.linear(dt, self.dt_proj.weight, self.dt_proj.bias + omega))
        y, h = selective_scan(u, delta, -self.A_log.float().exp(), B, C, state["h"] if state else None, self.D, gate)
        if state is not None:
            state["h"].copy_(h)
        return F.linear(y.to(gate.dtype), _whole(self.out_proj))

    def _in(self, x: Tensor) -> Tensor:
        """Inputs of the scan, then gates."""
        if self.published:
            return F.linear(x, self.in_proj[0])
        half = self.in_proj.shape[1] // 2
        return F.linear(x, torch.cat([_whole(self.in_proj[:, :half]), _whole(self.in_proj[:, half:])]))

    def _convolved(self, u: Float[Tensor, "B d n"], state: State | None) -> Float[Tensor, "B d n"]:
        """The convolution of each scale, then Mamba's own.

        One after the other where they look ahead. Else as one, which is linear in a past that is zero before the first step.
        """
        longest = max(self.kernels)
        ahead = [(longest - k) // 2 if self.published else 0 for k in self.kernels]
        kernels = [
            F.pad(conv.weight, (longest - conv.weight.shape[-1] - a, a))
            for conv, a in zip(self.scale_convs, ahead, strict=True)
        ]
        weight = torch.cat(kernels)
        bias = torch.cat([c.bias for c in self.scale_convs])
        if self.published:
            u = F.conv1d(u, weight, bias, padding=longest // 2, groups=self.scales)
            return F.conv1d(u, self.conv.weight, self.conv.bias, padding=self.window - 1, groups=len(bias))[
                ..., : u.shape[-1]
            ]
        both = F.conv1d(weight.transpose(0, 1), self.conv.weight.flip(-1), padding=self.window - 1, groups=len(bias))
        weight, bias = both.transpose(0, 1), self.conv.bias + bias * self.conv.weight.sum((1, 2))
        past = weight.shape[-1] - 1
        if state is None:
            return F.conv1d(u, weight, bias, padding=past, groups=self.scales)[..., : u.shape[-1]]
        u = torch.cat([state["past"].to(u.dtype), u], dim=-1)
        state["past"].copy_(u[..., u.shape[-1] - past :])
        return F.conv1d(u, weight, bias, groups=self.scales)

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """See :class:`~mobtk.contracts.Backbone`."""
        inner = self.D.shape[0]
        return {
            "past": self.D.new_zeros(batch, inner, max(self.kernels) + self.window - 2),
            "h": self.D.new_zeros(batch, inner, self.states, dtype=torch.float32),
        }

    def mixture_loss(
        self, outputs: Float[Tensor, "M n D"], experts: Int[Tensor, "M"], n_experts: int
    ) -> Float[Tensor, ""] | None:
        """The causal contrastive loss, weighted."""
        if not self.contrast or self.scales < 2:
            return None
        features = F.normalize(outputs.mean(1).unflatten(-1, (self.scales, -1)), dim=-1)
        if self.published:
            return self.contrast * published_contrast(features, experts, n_experts, self.temperature, self.gamma)
        return self.contrast * intended_contrast(features, experts, self.temperature, self.gamma)


def _whole(blocks: Float[Tensor, "Q o i"]) -> Float[Tensor, "out in"]:
    """A matrix with these blocks on its diagonal: one product is faster than many small ones."""
    return torch.block_diag(*blocks)
