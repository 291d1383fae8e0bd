"""A transformer for any schedule: pre-norm, rotary positions, adaptive layer norm on a condition."""

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.attention import KeyValueCache, attend, new_state, split_heads
from mobtk.backbones.positions import Positions, rotate
from mobtk.contracts import Backbone, Rows, State
from mobtk.errors import BadInput
from mobtk.schedule import Schedule

Modulation = tuple[Tensor, Tensor, Tensor]


@final
class Transformer(Backbone):
    """Pre-norm transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Xiong et al. 2020).

    Where M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314) and DiT (Peebles and Xie 2023) condition by
    scale, shift and gate, the gate here is ``1 + g``: without a condition, or before anything is learned, a block is
    a plain pre-norm block. As in M-STAR one modulation serves all blocks.

    Args:
        depth: blocks.
        heads: attention heads; must divide the width into even parts.
        ff: hidden width of the feed-forward layer, as a multiple of the width.
        dropout: on both branches, while training.
        adaptive: scale, shift and gate by the condition; else the condition is added to the inputs.
        positions: how tokens know where they stand: see :class:`~mobtk.backbones.positions.Positions`.
        longest: tokens that a table of positions has room for.
        base: of rotary angles and sinusoidal waves; the slowest turns once in ``2 pi base`` steps. For a week of hours 100
            tells the hours apart far better than the 10,000 usual for text (docs/results/core.md).
    """

    uses_condition: ClassVar[bool] = True
    takes_rows: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        *,
        depth: int = 4,
        heads: int = 4,
        ff: float = 4.0,
        dropout: float = 0.0,
        adaptive: bool = True,
        positions: str = "rotary",
        longest: int = 1024,
        base: float = 100.0,
    ) -> None:
        super().__init__()
        if heads < 1 or width % (2 * heads):
            fit = [str(n) for n in range(1, width // 2 + 1) if width % (2 * n) == 0]
            raise BadInput(
                f"a transformer of width {width} cannot have {heads} heads of even size; it can have "
                f"{', '.join(fit[:8]) or 'none, so choose an even width'}"
            )
        self.uses_condition = adaptive
        self.positions = Positions(positions, width, width // heads, base=base, longest=longest)
        self.max_tokens, self.needs_rows = self.positions.max_tokens, self.positions.needs_rows
        self.blocks = nn.ModuleList(_Block(width, heads, int(ff * width), dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=not adaptive)
        self.modulate = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 8 * width))
        if adaptive:
            nn.init.zeros_(self.modulate[2].weight)
            nn.init.zeros_(self.modulate[2].bias)
        else:
            del self.modulate
        residual = 0.02 / (2 * depth) ** 0.5
        for block in self.blocks:
            for name, weight in block.named_parameters():
                if name.endswith("weight") and weight.ndim == 2:
                    nn.init.normal_(weight, std=residual if "out" in name else 0.02)

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
        *,
        rows: Rows | None = None,
    ) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Backbone`."""
        at = state["at"] if state else 0
        x, angle = self.positions(x, schedule, at, rows)
        lengths = rows.lengths if rows else None
        attention = feed_forward = None
        last_scale: Tensor | float = 0.0
        last_shift: Tensor | float = 0.0
        if cond is not None and self.uses_condition:
            if state is None or "modulation" not in state:
                modulation = self.modulate(cond)[:, None].chunk(8, dim=-1)
                if state is not None:
                    state["modulation"] = modulation
            else:
                modulation = state["modulation"]
            attention, feed_forward, (last_scale, last_shift) = modulation[:3], modulation[3:6], modulation[6:]
        for i, block in enumerate(self.blocks):
            cache = state["caches"][i] if state else None
            x = block(x, schedule, angle, attention, feed_forward, cache, at, lengths)
        if state:
            state["at"] = at + x.shape[1]
        return self.norm(x) * (1 + last_scale) + last_shift

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """See :class:`~mobtk.contracts.Backbone`."""
        return new_state(batch, schedule, len(self.blocks))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_ff = nn.LayerNorm(width)
        self.ff_in = nn.Linear(width, hidden)
        self.ff_out = nn.Linear(hidden, width)

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        angle: Tensor | None,
        attention: Modulation | None,
        feed_forward: Modulation | None,
        cache: KeyValueCache | None,
        at: int,
        lengths: Int[Tensor, "B"] | None,
    ) -> Float[Tensor, "B n D"]:
        p = self.p if self.training else 0.0
        h, gate = _modulated(self.norm_attention(x), attention)
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(h).chunk(3, dim=-1))
        h = attend(rotate(q, angle), rotate(k, angle), v, schedule, cache, at, p, lengths)
        x = x + gate * F.dropout(self.attention_out(h), p)
        h, gate = _modulated(self.norm_ff(x), feed_forward)
        return x + gate * F.dropout(self.ff_out(F.gelu(self.ff_in(h))), p)


def _modulated(x: Tensor, modulation: Modulation | None) -> tuple[Tensor, Tensor | float]:
    if modulation is None:
        return x, 1.0
    gate, scale, shift = modulation
    return torch.addcmul(x + shift, x, scale), 1 + gate
