"""No routing: one expert serves every sequence."""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from mobtk.contracts import Router, Routing


@final
class NoRouter(Router):
    """Everything goes to the only expert."""

    max_experts: ClassVar[int | None] = 1
    needs_entity: ClassVar[bool] = False

    def __init__(self, n_experts: int, width: int) -> None:
        super().__init__()

    def forward(self, entity: Float[Tensor, "M S"] | None, features: Float[Tensor, "M n D"]) -> Routing:
        """See :class:`~mobtk.contracts.Router`."""
        experts = features.new_zeros(len(features), 1).long()
        return Routing(features.new_ones(len(features), 1), experts)
