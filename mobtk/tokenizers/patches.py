"""A token for each stretch of a node's past."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import FieldTokenizer
from mobtk.errors import BadInput
from mobtk.schedule import Schedule


@final
class Patches(FieldTokenizer):
    """A linear map of each ``length`` steps, as in PatchTST (Nie et al. 2023, https://arxiv.org/abs/2211.14730).

    Patches here do not overlap, and the first is filled with the earliest value where the history is no multiple. Of one
    step it is a token a step.

    Args:
        length: steps of a patch.
    """

    def __init__(self, history: int, channels: int, width: int, *, length: int = 8) -> None:
        super().__init__()
        if not 1 <= length <= history:
            raise BadInput(f"patches of {length} steps do not fit a history of {history}; take 1 to {history}")
        n = -(-history // length)
        self.length, self.missing, self.scales = length, n * length - history, 1
        self.schedule = Schedule((n,), tuple((i + 0.5) * length - 0.5 - self.missing for i in range(n)))
        self.embed = nn.Linear(length * channels, width)

    def forward(self, history: Float[Tensor, "B T N C"]) -> Float[Tensor, "B L N D Q"]:
        """See :class:`~mobtk.contracts.FieldTokenizer`."""
        x = history.permute(0, 2, 3, 1)
        x = F.pad(x.flatten(1, 2), (self.missing, 0), mode="replicate").view(*x.shape[:3], -1) if self.missing else x
        x = x.unflatten(-1, (-1, self.length)).permute(0, 3, 1, 2, 4)  # (B, L, N, C, length)
        return self.embed(x.flatten(-2))[..., None]
