"""Where tokens stand: nothing of it, a table, fixed waves, or angles by which queries and keys are turned."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import Rows
from mobtk.errors import BadInput
from mobtk.schedule import Schedule

KINDS = ("none", "learned", "sinusoidal", "rotary", "rotary-time", "rotary-place")


@final
class Positions(nn.Module):
    """What an attention backbone knows of where its tokens stand.

    - ``none``: only what the mask tells.
    - ``learned``: a table, by the number of a token in the order of decision.
    - ``sinusoidal``: fixed waves (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5), by the time of the
      schedule; how high they are is learned.
    - ``rotary``: angles by which queries and keys are turned (Su et al. 2021, https://arxiv.org/abs/2104.09864), so that
      attention knows how far apart in that time two tokens are.
    - ``rotary-time``: the same by the moments of the sequence's own tokens.
    - ``rotary-place``: by their places, half of the angles by each axis, in the manner of TrajFM (Lin et al. 2024,
      https://arxiv.org/abs/2408.15251).

    Args:
        how: one of :data:`KINDS`.
        width: ``D``.
        head: width of a head.
        base: of the angles and waves; the slowest turns once in ``2 pi base``.
        longest: tokens that a table has room for.

    Attributes:
        max_tokens: the longest sequence, where there is a limit.
        needs_rows: whether it reads moments or places that each sequence has for itself.
    """

    def __init__(self, how: str, width: int, head: int, *, base: float, longest: int) -> None:
        super().__init__()
        if how not in KINDS:
            raise BadInput(f"positions are one of {', '.join(KINDS)}, not {how!r}")
        if how.startswith("rotary") and head % 2:
            raise BadInput(f"{how} positions want heads of an even width, not {head}")
        if how == "rotary-place" and head % 4:
            raise BadInput(f"rotary-place positions want heads whose width is a multiple of 4, not {head}")
        self.how, self.pairs, self.base = how, head // 2, base
        self.max_tokens = longest if how == "learned" else None
        self.needs_rows = how in ("rotary-time", "rotary-place")
        self.table = nn.Embedding(longest, width) if how == "learned" else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.02)
        self.height = nn.Parameter(torch.tensor(0.02)) if how == "sinusoidal" else None

    def forward(
        self, x: Float[Tensor, "B n D"], schedule: Schedule, at: int, rows: Rows | None = None
    ) -> tuple[Float[Tensor, "B n D"], Tensor | None]:
        """Inputs that know where they stand, from token ``at`` on; and the angles of :func:`rotate`, ``(n, d / 2)``, or
        ``(B, 1, n, d / 2)`` where each sequence has its own.
        """
        end = at + x.shape[1]
        if self.table is not None:
            if end > self.table.num_embeddings:
                raise BadInput(
                    f"a table of {self.table.num_embeddings} positions has none for {end} tokens; build the model with "
                    f"--set backbone.longest={end}, or with --set backbone.positions=rotary"
                )
            return x + self.table(torch.arange(at, end, device=x.device)), None
        if self.how == "none":
            return x, None
        if self.height is not None:
            width = x.shape[-1]
            angle = schedule.time(x.device)[at:end, None] * _speeds(-(-width // 2), self.base, x.device)
            return x + (self.height * torch.cat([angle.sin(), angle.cos()], -1)[:, :width]).to(x.dtype), None
        if self.how == "rotary":
            return x, schedule.time(x.device)[at:end, None] * _speeds(self.pairs, self.base, x.device)
        if self.how == "rotary-time":
            if rows is None or rows.times is None:
                raise BadInput("rotary-time positions want the moment of each token; take rotary here")
            return x, (rows.times[..., None] * _speeds(self.pairs, self.base, x.device))[:, None]
        if rows is None or rows.places is None:
            raise BadInput("rotary-place positions want the place of each token; take rotary here")
        angle = rows.places[..., None] * _speeds(self.pairs // 2, self.base, x.device)
        return x, angle.flatten(-2)[:, None]


def _speeds(n: int, base: float, device: torch.device) -> Float[Tensor, "n"]:
    return base ** (-torch.arange(n, device=device) / n)


def rotate(x: Float[Tensor, "B heads n d"], angle: Tensor | None) -> Float[Tensor, "B heads n d"]:
    """Turn dimension ``i`` together with dimension ``i + d / 2``; as it is without an angle."""
    if angle is None:
        return x
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
