"""A mixture of experts over any backbone; it is itself a backbone."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mobtk.contracts import Backbone, Router, Routing, Rows, State
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
        gate: of the shared backbone: a map of the entity to a number, which a sigmoid makes its weight; 1 without one.
    """

    uses_condition: ClassVar[bool] = False
    takes_rows: ClassVar[bool] = False

    def __init__(
        self, router: Router, experts: Sequence[Backbone], shared: Backbone | None = None, gate: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.router, self.experts, self.shared, self.gate = router, nn.ModuleList(experts), shared, gate
        self.served: Tensor | None = None  # by which (best) expert each sequence of the last pass was
        self.uses_condition = experts[0].uses_condition
        self.takes_rows = all(e.takes_rows for e in (*experts, *([shared] if shared else [])))
        self.max_tokens, self.needs_rows = experts[0].max_tokens, experts[0].needs_rows

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
        entity: Float[Tensor, "B S"] | None = None,
        *,
        rows: Rows | None = None,
    ) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Backbone`. Sequences are routed by the ``entity``: the condition if not given."""
        if rows is not None and not self.takes_rows:
            raise ValueError("these experts take no rows")
        if entity is None:
            entity = cond
        if state is not None and "routing" in state:
            routing: Routing = state["routing"]
        else:
            first = x[:, schedule.group(0)]
            routing = self.router(entity, first if rows is None else _padded_by_mean(first, rows.lengths))
        if state is not None and "routing" not in state:
            state["routing"] = routing
            state["experts"] = [
                expert.new_state(int((routing.experts == e).sum()), schedule) for e, expert in enumerate(self.experts)
            ]
        self.auxiliary_loss, self.served = None, routing.experts[:, 0]
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            who, slot = torch.where(routing.experts == e)
            if not len(who):
                continue
            mine = None if cond is None else cond[who]
            y = expert(x[who], schedule, mine, state["experts"][e] if state else None, **self._of(rows, who))
            out = out.index_add(0, who, (routing.weights[who, slot, None, None] * y).to(out.dtype))
        if self.training:
            asked = self.experts[0].mixture_loss(out, routing.experts[:, 0], len(self.experts))
            terms = [term for term in (routing.loss, asked) if term is not None]
            self.auxiliary_loss = torch.stack(terms).sum() if terms else None
        if self.shared is not None:
            always = self.shared(x, schedule, cond, state["shared"] if state else None, **self._of(rows))
            out = out + (always if self.gate is None else torch.sigmoid(self.gate(entity))[..., None] * always)
        return out

    def _of(self, rows: Rows | None, who: Int[Tensor, "m"] | None = None) -> dict[str, Rows]:
        """The argument ``rows`` for some sequences, where it is given."""
        if rows is None:
            return {}
        parts = (rows.lengths, rows.times, rows.places)
        return {"rows": rows if who is None else Rows(*(None if part is None else part[who] for part in parts))}

    def new_state(self, batch: int, schedule: Schedule) -> State:
        """Which experts serve how many is known at the first group only; their states are made then."""
        return {"shared": self.shared.new_state(batch, schedule) if self.shared is not None else None}


def _padded_by_mean(x: Float[Tensor, "B n D"], lengths: Int[Tensor, "B"] | None) -> Float[Tensor, "B n D"]:
    """Features whose padding is the mean of what is there, so that it decides nothing."""
    if lengths is None:
        return x
    there = (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None]
    mean = torch.where(there, x, 0.0).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
    return torch.where(there, x, mean)
