"""Routing by what a sequence looks like."""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import Router, Routing
from mobtk.routers.topk import check_top_k, route


@final
class InputRouter(Router):
    """Top-k experts by the mean features of a sequence's first group, kept in balance by a loss.

    After the sparsely gated mixture of experts (Shazeer et al. 2017, https://arxiv.org/abs/1701.06538) with the
    balancing loss of Switch transformers; per sequence rather than per token, and without noise. The first group is
    all that is known when a generation begins, so the choice is the same for the full pass and group by group. In a
    generator the first group reads the condition and nothing else that differs, so there it routes by traits too.

    Args:
        top_k: experts a sequence.
        balance: weight of the balancing loss.
    """

    max_experts: ClassVar[int | None] = None
    needs_entity: ClassVar[bool] = False

    def __init__(self, n_experts: int, width: int, *, top_k: int = 1, balance: float = 0.01) -> None:
        super().__init__()
        self.top_k, self.balance = check_top_k(top_k, n_experts), balance
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_experts, bias=False))

    def forward(self, entity: Float[Tensor, "M S"] | None, features: Float[Tensor, "M n D"]) -> Routing:
        """See :class:`~mobtk.contracts.Router`."""
        return route(self.score(features.mean(1)), self.top_k, self.balance)
