"""STM3's router as its code has it."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import Router, Routing


@final
class PublishedGate(Router):
    """The best expert by a node's embedding, with a weight of ``p / (p + 1e-8)``: 1, so that next to no gradient comes back.

    For comparison with core's ``entity``, which learns. The noise on the scores is drawn while training only; the authors'
    code draws it in evaluation, too, where it moves 1 to 3 % of the nodes to another expert each time.

    Args:
        noise: scores are raised by up to so much, at random.
    """

    max_experts: ClassVar[int | None] = None
    needs_entity: ClassVar[bool] = True
    learns: ClassVar[bool] = False

    def __init__(self, n_experts: int, width: int, *, noise: float = 0.01) -> None:
        super().__init__()
        self.noise = noise
        self.score = nn.Linear(width, n_experts, bias=False)

    def forward(self, entity: Float[Tensor, "M S"] | None, features: Float[Tensor, "M n D"]) -> Routing:
        """See :class:`~mobtk.contracts.Router`."""
        if entity is None:
            raise ValueError("the published gate was given no entity")
        scores = self.score(entity).float()
        if self.training:
            scores = scores + self.noise * torch.rand_like(scores)
        best, experts = scores.softmax(-1).max(-1, keepdim=True)
        return Routing(best / (best + 1e-8), experts)
