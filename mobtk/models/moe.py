"""A mixture of experts over any backbone; it is itself a backbone."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import Backbone, Router, Routing, State
from mobtk.schedule import Schedule


@final
class MixtureOfExperts(Backbone):
    """Each sequence is served by the experts its router names; their outputs are summed with its weights.

    A sequence is routed once, by its condition (the entity) or the inputs of its first group, and stays with its
    experts, so each expert keeps the state of its own sequences only.

    Args:
        router: names the experts.
        experts: backbones of one width.
        shared: a backbone that serves every sequence besides.
    """

    uses_condition: ClassVar[bool] = False

    def __init__(self, router: Router, experts: Sequence[Backbone], shared: Backbone | None = None) -> None:
        super().__init__()
        self.router, self.experts, self.shared = router, nn.ModuleList(experts), shared
        self.uses_condition = experts[0].uses_condition  # type: ignore[misc]
        self.max_tokens = experts[0].max_tokens

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
    ) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Backbone`."""
        if state is not None and "routing" in state:
            routing: Routing = state["routing"]
        else:
            routing = self.router(cond, x[:, schedule.group(0)])
        if state is not None and "routing" not in state:
            state["routing"] = routing
            state["experts"] = [
                expert.new_state(int((routing.experts == e).sum()), schedule) for e, expert in enumerate(self.experts)
            ]
        self.auxiliary_loss = routing.loss if self.training else None
        out = torch.zeros_like(x)
        if self.shared is not None:
            out = out + self.shared(x, schedule, cond, state["shared"] if state else None)
        for e, expert in enumerate(self.experts):
            rows, slot = torch.where(routing.experts == e)
            if not len(rows):
                continue
            y = expert(x[rows], schedule, None if cond is None else cond[rows], state["experts"][e] if state else None)
            out = out.index_add(0, rows, (routing.weights[rows, slot, None, None] * y).to(out.dtype))
        return out

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """Which experts serve how many is known at the first group only; their states are made then."""
        return {"shared": self.shared.new_state(batch, schedule) if self.shared is not None else None}
