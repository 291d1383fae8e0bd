"""One token a step: the cell itself. The autoregressive way of the language models."""

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mobtk.contracts import SpatialMapper, State, Tokenizer
from mobtk.schedule import Schedule
from mobtk.tokenizers.heads import CategoricalHead


@final
class CellTokens(Tokenizer):
    """A token a step, the finest cell; each step is decided given all steps before it.

    The input at step ``t`` is the embedding of the cell at ``t - 1`` (a learned start at ``t = 0``) plus a learned
    vector for ``t``, which tells the hour of the day and the day of the week.

    Args:
        tied: share the embedding table with the head, as GPT-2 does.
    """

    learns: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    needs_levels: ClassVar[bool] = False

    def __init__(self, mapper: SpatialMapper, steps: int, width: int, *, tied: bool = True) -> None:
        super().__init__()
        self.schedule = Schedule.autoregressive(steps)
        self.codec = None
        self.embed = nn.Embedding(mapper.n_cells[0], width)
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.when = nn.Parameter(torch.randn(steps, width) * 0.02)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head = CategoricalHead(width, mapper.n_cells[0], tied=self.embed if tied else None)

    def encode(self, sequences: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return sequences.long()

    def decode(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return tokens

    def inputs(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        start = self.start.expand(len(tokens), 1, -1)
        return torch.cat([start, self.embed(tokens[:, :-1])], dim=1) + self.when

    def next_inputs(self, tokens: Int[Tensor, "B l"], k: int, state: State) -> Float[Tensor, "B 1 D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        previous = self.embed(tokens[:, -1:]) if k else self.start.expand(len(tokens), 1, -1)
        return previous + self.when[k]

    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Nothing to learn."""
        return {}

    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return {"accuracy": 1.0}
