"""A node's past at several scales."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import FieldTokenizer
from mobtk.errors import BadInput
from mobtk.schedule import Schedule


@final
class Multiscale(FieldTokenizer):
    """A token a step: a linear lift of its values, then a convolution for each scale (Chen et al. 2025).

    Convolutions run over time and reach as far before a step as after it: the past is all known. In the authors' code
    they run over the nodes, whose order means nothing (``over="nodes"``). All scales are one convolution here, the shorter
    kernels filled with zeros.

    Args:
        kernels: steps of each scale's convolution, odd numbers.
        over: ``time``, or ``nodes`` as published.
    """

    def __init__(
        self, history: int, channels: int, width: int, *, kernels: Sequence[int] = (1, 3, 5, 7), over: str = "time"
    ) -> None:
        super().__init__()
        self.scales = len(kernels)
        if over not in ("time", "nodes"):
            raise BadInput(f"multiscale: convolutions run over time or nodes, not {over!r}")
        if not kernels or min(kernels) < 1 or any(k % 2 == 0 for k in kernels):
            raise BadInput(f"multiscale: kernels are odd numbers of steps, not {tuple(kernels)}")
        if width % self.scales:
            raise BadInput(f"multiscale: a width of {width} has no equal parts for {self.scales} scales; take a multiple")
        self.over, self.longest = over, max(kernels)
        self.schedule = Schedule((history,))
        self.lift = nn.Linear(channels, width // self.scales)
        self.convs = nn.ModuleList(nn.Conv1d(width // self.scales, width // self.scales, k) for k in kernels)

    def forward(self, history: Float[Tensor, "B T N C"]) -> Float[Tensor, "B L N D Q"]:
        """See :class:`~mobtk.contracts.FieldTokenizer`."""
        along = (0, 2, 3, 1) if self.over == "time" else (0, 1, 3, 2)
        x = self.lift(history).permute(*along)  # (B, N, D, T), or (B, T, D, N)
        weights = [F.pad(c.weight, [(self.longest - c.weight.shape[-1]) // 2] * 2) for c in self.convs]
        bias = torch.cat([c.bias for c in self.convs])
        y = F.conv1d(x.flatten(0, 1), torch.cat(weights), bias, padding=self.longest // 2)
        y = y.view(*x.shape[:2], self.scales, -1, y.shape[-1])  # (B, N, Q, D, T), or (B, T, Q, D, N)
        return y.permute(0, 4, 1, 3, 2) if self.over == "time" else y.permute(0, 1, 4, 3, 2)
