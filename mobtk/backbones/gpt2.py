"""GPT-2 as published: learned positions (or others), pre-norm, GELU by tanh, biases everywhere."""

from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.attention import KeyValueCache, attend, new_state, split_heads
from mobtk.backbones.positions import Positions, rotate
from mobtk.contracts import Backbone, Rows, State
from mobtk.errors import BadInput
from mobtk.schedule import Schedule


@final
class GPT2(Backbone):
    """The blocks of GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners").

    With a schedule of ones it is GPT-2 to the logits (``tokenizer 'cells'`` ties the head to the embedding as GPT-2
    does); with any other schedule only the mask differs.

    Args:
        depth: blocks (GPT-2 small has 12).
        heads: attention heads; must divide the width.
        positions: how tokens know where they stand: see :class:`~mobtk.backbones.positions.Positions`.
        longest: tokens that a table of positions has room for.
        base: of rotary angles and sinusoidal waves.
        dropout: on both branches and on the inputs, while training.
    """

    uses_condition: ClassVar[bool] = False

    takes_rows: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        *,
        depth: int = 4,
        heads: int = 4,
        positions: str = "learned",
        longest: int = 1024,
        base: float = 10_000.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise BadInput(f"a GPT-2 of width {width} cannot have {heads} heads; the heads must divide the width")
        self.p = dropout
        self.positions = Positions(positions, width, width // heads, base=base, longest=longest)
        self.max_tokens, self.needs_rows = self.positions.max_tokens, self.positions.needs_rows
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for name, weight in self.named_parameters():
            if name.endswith("weight") and weight.ndim == 2:
                nn.init.normal_(weight, std=0.02 / (2 * depth) ** 0.5 if "out" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

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
        x = F.dropout(x, self.p, self.training)
        for i, block in enumerate(self.blocks):
            x = block(x, schedule, angle, state["caches"][i] if state else None, at, lengths)
        if state:
            state["at"] = at + x.shape[1]
        return self.norm(x)

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """See :class:`~mobtk.contracts.Backbone`."""
        return new_state(batch, schedule, len(self.blocks))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_ff = nn.LayerNorm(width)
        self.ff_in = nn.Linear(width, 4 * width)
        self.ff_out = nn.Linear(4 * width, width)

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        angle: Tensor | None,
        cache: KeyValueCache | None,
        at: int,
        lengths: Int[Tensor, "B"] | None,
    ) -> Float[Tensor, "B n D"]:
        p = self.p if self.training else 0.0
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm_attention(x)).chunk(3, dim=-1))
        h = attend(rotate(q, angle), rotate(k, angle), v, schedule, cache, at, p, lengths)
        x = x + F.dropout(self.attention_out(h), p)
        h = F.gelu(self.ff_in(self.norm_ff(x)), approximate="tanh")
        return x + F.dropout(self.ff_out(h), p)
