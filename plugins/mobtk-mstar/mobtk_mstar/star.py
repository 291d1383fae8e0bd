"""STAR-Transformer: foretells the codes of a scale from those of the scales before."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.attention import KeyValueCache, attend, new_state, split_heads
from mobtk.contracts import Backbone, State
from mobtk.errors import BadInput
from mobtk.schedule import Schedule


@final
class STAR(Backbone):
    """The transformer of M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314), as the authors' code has it.

    Where core's ``transformer`` differs: attention here knows no positions (the inputs carry learned ones), gates begin
    near 0 and not at 1, the modulation has a wider hidden layer, and there are three of them: one for all attention
    branches, one for all feed-forward branches, one for the last norm (whose gate nobody reads).

    Of the authors' code it differs in that dropout of attention is torch's, inside the fused product, and in that the
    modulation is computed once a sequence and not once a block, which changes nothing.

    Args:
        depth: blocks.
        heads: attention heads.
        ff: hidden width of the feed-forward layer, as a multiple of the width.
        dropout: of attention weights and of the feed-forward layer; on whole branches it grows from 0 in the first block
            to this in the last.
    """

    uses_condition: ClassVar[bool] = True

    def __init__(self, width: int, *, depth: int = 4, heads: int = 8, ff: float = 4.0, dropout: float = 0.2) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise BadInput(f"star of width {width} cannot have {heads} heads; choose a divisor of the width")
        self.heads, self.p = heads, dropout
        self.blocks = nn.ModuleList(_Block(width, int(ff * width)) for _ in range(depth))
        self.modulate = nn.ModuleDict({name: _modulation(width) for name in ("attention", "feed_forward", "last")})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
    ) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Backbone`."""
        at = state["at"] if state else 0
        if state is None or "modulation" not in state:
            c = x.new_zeros(len(x), x.shape[-1]) if cond is None else cond
            modulation = {name: part(c)[:, None].chunk(3, dim=-1) for name, part in self.modulate.items()}
            if state is not None:
                state["modulation"] = modulation
        else:
            modulation = state["modulation"]
        p = self.p if self.training else 0.0
        for i, block in enumerate(self.blocks):
            drop_branch = p * i / max(1, len(self.blocks) - 1)
            n, gate = _modulated(x, modulation["attention"])
            cache: KeyValueCache | None = state["caches"][i] if state else None
            x = x + F.dropout(gate * block.attention(n, self.heads, schedule, cache, at, p), drop_branch)
            n, gate = _modulated(x, modulation["feed_forward"])
            x = x + F.dropout(gate * block.feed_forward(n, p), drop_branch)
        if state:
            state["at"] = at + x.shape[1]
        return _modulated(x, modulation["last"])[0]

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """See :class:`~mobtk.contracts.Backbone`."""
        return new_state(batch, schedule, len(self.blocks))


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ff_in = nn.Linear(width, hidden)
        self.ff_out = nn.Linear(hidden, width)

    def attention(self, x: Tensor, heads: int, schedule: Schedule, cache: KeyValueCache | None, at: int, p: float) -> Tensor:
        q, k, v = (split_heads(part, heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(attend(q, k, v, schedule, cache, at, p))

    def feed_forward(self, x: Tensor, p: float) -> Tensor:
        return F.dropout(self.ff_out(F.dropout(F.gelu(self.ff_in(x)), p)), p)


def _modulation(width: int) -> nn.Sequential:
    """Gate, scale and shift from the condition."""
    return nn.Sequential(nn.Linear(width, 3 * width), nn.SiLU(), nn.Linear(3 * width, 3 * width))


def _modulated(x: Tensor, modulation: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    gate, scale, shift = modulation
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale), gate
