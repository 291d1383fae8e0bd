"""Gated recurrent units as a backbone."""

from typing import ClassVar, final

from torch import nn

from mobtk.contracts import Backbone


@final
class GRU(Backbone):
    """Layers of gated recurrent units (Cho et al. 2014, https://arxiv.org/abs/1406.1078), each after a layer norm and added
    to what it was given, which theirs is not.

    It reads from left to right, so of a group, too, each token knows those before it and none after it. The condition is
    where each layer begins. What stands after a sequence changes nothing before it: padding needs no care.

    Args:
        depth: layers.
        dropout: of what each layer adds.
    """

    uses_condition: ClassVar[bool] = True
    takes_rows: ClassVar[bool] = True

    def __init__(self, width, *, depth: int = 2, dropout: float = 0.0):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(depth))
        self.begins = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.drop = nn.Dropout(dropout)

    def forward(self, x, schedule, cond=None, state=None, *, rows=None):
        """All tokens at once, or with a state those of the next groups."""
        for i, (norm, layer, begin) in enumerate(zip(self.norms, self.layers, self.begins, strict=True)):
            memory = state["memories"][i] if state is not None else None
            if memory is None and cond is not None:
                memory = begin(cond)[None]
            mixed, memory = layer(norm(x), memory)
            x = x + self.drop(mixed)
            if state is not None:
                state["memories"][i] = memory
        return x

    def new_state(self, batch, schedule):
        """A vector a layer, whatever the length."""
        return {"memories": [None for _ in self.layers]}
