"""No mixing: each node by itself."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mobtk.contracts import Mixer


@final
class NoMixer(Mixer):
    """Adds nothing."""

    needs_graph: ClassVar[bool] = False

    def __init__(self, graph: Float[Tensor, "N N"] | None, width: int, scales: int, entity: int) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "B L N D Q"], entity: Float[Tensor, "N S"]) -> Float[Tensor, "B L N D Q"]:
        """See :class:`~mobtk.contracts.Mixer`."""
        return torch.zeros_like(x)
