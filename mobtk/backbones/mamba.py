"""Mamba: a selective state space, linear in the length of the sequence."""

import math
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.selective_scan import selective_scan
from mobtk.contracts import Backbone, Rows, State
from mobtk.schedule import Schedule


@final
class Mamba(Backbone):
    """Blocks of Mamba-1 (Gu and Dao 2023, https://arxiv.org/abs/2312.00752), residual, each after an RMS norm.

    It reads tokens one by one in the order of decision, so inside a group a token sees only those before it: the
    schedule is kept, but scales are not read in both directions as attention reads them. Runs wherever torch runs.

    Args:
        depth: blocks.
        expand: inner width, as a multiple of the width.
        states: ``N``, size of the state of each inner channel.
        window: steps of the causal convolution.
    """

    uses_condition: ClassVar[bool] = False
    takes_rows: ClassVar[bool] = True

    def __init__(self, width: int, *, depth: int = 4, expand: int = 2, states: int = 16, window: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MambaBlock(width, expand, states, window) for _ in range(depth))
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-5)

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
        *,
        rows: Rows | None = None,
    ) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Backbone`. Padding comes last, where nothing reads it."""
        for i, (norm, block) in enumerate(zip(self.norms, self.blocks, strict=True)):
            x = x + block(norm(x), state["blocks"][i] if state else None)
        return self.norm(x)

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """See :class:`~mobtk.contracts.Backbone`."""
        return {"blocks": [block.new_state(batch) for block in self.blocks]}


@final
class MambaBlock(nn.Module):
    """One Mamba-1 mixer, initialised as in the paper (section 3.6: ``A = -(1..N)``, steps of 0.001 to 0.1)."""

    def __init__(self, width: int, expand: int, states: int, window: int) -> None:
        super().__init__()
        inner, self.rank, self.states, self.window = expand * width, math.ceil(width / 16), states, window
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, window, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            dt = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt

    def forward(self, x: Float[Tensor, "B n D"], state: State | None = None) -> Float[Tensor, "B n D"]:
        """All tokens, or the next ones with a state."""
        u, gate = self.in_proj(x).chunk(2, dim=-1)
        u = u.transpose(1, 2)
        if state is None:
            u = F.pad(u, (self.window - 1, 0))
        else:
            u = torch.cat([state["window"].to(u.dtype), u], dim=-1)
            state["window"].copy_(u[..., u.shape[-1] - self.window + 1 :])
        u = F.silu(self.conv(u)).transpose(1, 2)
        dt, B, C = self.x_proj(u).split([self.rank, self.states, self.states], dim=-1)
        delta = F.softplus(self.dt_proj(dt))
        y, h = selective_scan(u, delta, -self.A_log.float().exp(), B, C, state["h"] if state else None, self.D, gate)
        if state is not None:
            state["h"].copy_(h)
        return self.out_proj(y.to(gate.dtype))

    def new_state(self, batch: int) -> State:
        """The last inputs of the convolution and the state of the scan, all zero."""
        inner = self.D.shape[0]
        return {
            "window": self.D.new_zeros(batch, inner, self.window - 1),
            "h": self.D.new_zeros(batch, inner, self.states, dtype=torch.float32),
        }
