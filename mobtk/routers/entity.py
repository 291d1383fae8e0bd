"""Routing by who or where a sequence is of."""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import Router, Routing
from mobtk.routers.topk import check_top_k, route


@final
class EntityRouter(Router):
    """Top-k experts by a static embedding of the entity: a person's traits, a sensor.

    After the routing of STM3 (Chen et al. 2025, https://arxiv.org/abs/2508.12247), with a gradient to the router and
    without noise, both of which the published code has otherwise.

    Args:
        top_k: experts a sequence.
        balance: weight of the balancing loss; 0 has none, as in STM3.
    """

    max_experts: ClassVar[int | None] = None
    needs_entity: ClassVar[bool] = True

    def __init__(self, n_experts: int, width: int, *, top_k: int = 1, balance: float = 0.0) -> None:
        super().__init__()
        self.top_k, self.balance = check_top_k(top_k, n_experts), balance
        self.score = nn.Linear(width, n_experts, bias=False)

    def forward(self, entity: Float[Tensor, "M S"] | None, features: Float[Tensor, "M n D"]) -> Routing:
        """See :class:`~mobtk.contracts.Router`."""
        if entity is None:
            raise ValueError("the entity router was given no entity")
        return route(self.score(entity), self.top_k, self.balance)
