"""One token a step: the cell itself. Step by step as language models have it, or masked, in a few passes."""

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mobtk.contracts import SpatialMapper, State, Tokenizer
from mobtk.errors import BadInput
from mobtk.schedule import Schedule
from mobtk.tokenizers.heads import CategoricalHead


@final
class CellTokens(Tokenizer):
    """A token a step, the finest cell; each is decided given the steps of earlier passes.

    Without ``passes`` each step is a pass of its own, in order. With ``passes`` every so many-th step is decided at once,
    midway between those of the passes before (:meth:`~mobtk.schedule.Schedule.masked`), as in masked generation (MaskGIT,
    Chang et al. 2022, https://arxiv.org/abs/2202.04200); which steps a pass decides is fixed, and not chosen by how sure
    the model is of them, so that one training pass serves all passes.

    The input at a step is the embedding of the nearest decided cell before it (a learned start where there is none), with
    ``passes`` also that of the nearest one after it, plus a learned vector for the step, which tells the hour of the day
    and the day of the week. So, step by step, the input is the cell before.

    Args:
        tied: share the embedding table with the head, as GPT-2 does.
        passes: in how many passes a sequence is decided; all its steps, one after the other, by default.
    """

    learns: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    needs_levels: ClassVar[bool] = False

    def __init__(
        self, mapper: SpatialMapper, steps: int, width: int, *, tied: bool = True, passes: int | None = None
    ) -> None:
        super().__init__()
        if passes is not None and not 1 <= passes <= steps:
            raise BadInput(f"cells: passes={passes} lies in 1..{steps}, the steps of a sequence")
        in_order = passes is None
        self.schedule = Schedule.autoregressive(steps) if in_order else Schedule.masked([False] * steps, passes)
        self.codec = None
        self.embed = nn.Embedding(mapper.n_cells[0], width)
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.when = nn.Parameter(torch.randn(steps, width) * 0.02)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head = CategoricalHead(width, mapper.n_cells[0], tied=self.embed if tied else None)
        self.after = None if in_order else nn.Linear(width, width, bias=False)
        self.register_buffer("step_of", self.schedule.time().long(), persistent=False)
        before, after = beside(self.schedule)
        self.register_buffer("token_before", before, persistent=False)
        self.register_buffer("token_after", after, persistent=False)

    def encode(self, sequences: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return sequences[:, self.step_of].long()

    def decode(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return torch.empty_like(tokens).index_copy_(1, self.step_of, tokens)

    def inputs(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return self._inputs(tokens, slice(None))

    def next_inputs(self, tokens: Int[Tensor, "B l"], k: int, state: State) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return self._inputs(tokens, self.schedule.group(k))

    def _inputs(self, tokens: Int[Tensor, "B l"], where: slice) -> Float[Tensor, "B n D"]:
        x = self._cell(tokens, self.token_before[where]) + self.when[self.step_of[where]]
        return x if self.after is None else x + self.after(self._cell(tokens, self.token_after[where]))

    def _cell(self, tokens: Int[Tensor, "B l"], which: Int[Tensor, "n"]) -> Float[Tensor, "B n D"]:
        """The embedding of some tokens; of -1 the start."""
        start = self.start.expand(len(tokens), len(which), -1)
        if not tokens.shape[1]:
            return start
        return torch.where((which >= 0)[:, None], self.embed(tokens[:, which.clamp(min=0)]), start)

    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Nothing to learn."""
        return {}

    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return {"accuracy": 1.0}


def beside(schedule: Schedule) -> tuple[Int[Tensor, "L"], Int[Tensor, "L"]]:
    """For each token, those of the nearest step before and after it that earlier passes decided; -1 where there is none."""
    step, group = schedule.time().long(), schedule.group_of()
    gap = step[None, :] - step[:, None]
    known = group[None, :] < group[:, None]
    far = schedule.n_tokens
    before = torch.where(known & (gap < 0), gap, -far).max(dim=1)
    after = torch.where(known & (gap > 0), gap, far).min(dim=1)
    none = torch.tensor(-1)
    return torch.where(before[0] > -far, before[1], none), torch.where(after[0] < far, after[1], none)
