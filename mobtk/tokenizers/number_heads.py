"""Heads over tokens of numbers: a regression, a mixture of Gaussians, or cells."""

import math
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Head
from mobtk.tokenizers.heads import draw

LEAST = 1e-3
"""Of a scale, so that no likelihood grows without bound where the same number comes again and again."""


@final
class RegressionHead(Head):
    """One number a channel, with Laplace's distribution about it: but for its width, which is learned for each channel, the
    loss is the absolute error.

    Args:
        width: ``D``.
        channels: ``C``, numbers of a token.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.centre = nn.Linear(width, channels)
        self.spread = nn.Parameter(torch.zeros(channels))

    def loss(
        self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"], tokens: Float[Tensor, "B n C"]
    ) -> Float[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        width = self._width()
        return ((tokens - self.centre(hidden).float()).abs() / width + (2 * width).log()).sum(-1)

    def sample(
        self,
        hidden: Float[Tensor, "B n D"],
        inputs: Float[Tensor, "B n D"],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        share: Int[Tensor, "n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B n C"]:
        """See :class:`~mobtk.contracts.Head`. There is nothing to choose among, so ``top_k`` and the like change nothing."""
        centre = self.centre(hidden).float()
        if temperature == 0:
            return centre
        u = _shared(torch.rand, centre, share, generator) - 0.5
        return centre - temperature * self._width() * u.sign() * torch.log1p(-2 * u.abs())

    def _width(self) -> Float[Tensor, "C"]:
        return F.softplus(self.spread) + LEAST


@final
class GaussianMixtureHead(Head):
    """A mixture of Gaussians over all channels of a token together, each with a width for every channel (Bishop 1994,
    "Mixture density networks"): where one may go left or right, it says so, and not the middle.

    The centres begin apart, as far as numbers of about unit size want it.

    Args:
        width: ``D``.
        channels: ``C``, numbers of a token.
        components: of the mixture.
    """

    def __init__(self, width: int, channels: int, *, components: int = 8) -> None:
        super().__init__()
        self.components = components
        self.project = nn.Linear(width, components * (1 + 2 * channels))
        with torch.no_grad():
            biases = self.project.bias[components:].view(components, 2, channels)
            nn.init.normal_(biases[:, 0])

    def mixture(
        self, hidden: Float[Tensor, "B n D"]
    ) -> tuple[Float[Tensor, "B n K"], Float[Tensor, "B n K C"], Float[Tensor, "B n K C"]]:
        """Logarithms of the weights, centres and widths of the components."""
        found = self.project(hidden).float()
        logits, rest = found[..., : self.components], found[..., self.components :]
        centre, spread = rest.unflatten(-1, (self.components, 2, -1)).unbind(-2)
        return logits.log_softmax(-1), centre, F.softplus(spread) + LEAST

    def loss(
        self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"], tokens: Float[Tensor, "B n C"]
    ) -> Float[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        log_weight, centre, width = self.mixture(hidden)
        log_p = torch.distributions.Normal(centre, width).log_prob(tokens[:, :, None]).sum(-1)
        return -(log_weight + log_p).logsumexp(-1)

    def sample(
        self,
        hidden: Float[Tensor, "B n D"],
        inputs: Float[Tensor, "B n D"],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        share: Int[Tensor, "n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B n C"]:
        """See :class:`~mobtk.contracts.Head`. ``top_k`` and the like choose among components; temperature 0 takes the centre
        of the one with the largest weight.
        """
        log_weight, centre, width = self.mixture(hidden)
        which = draw(log_weight, temperature, top_k, top_p, min_p, share, generator)[..., None, None]
        centre, width = (x.gather(2, which.expand(*which.shape[:3], x.shape[-1]))[:, :, 0] for x in (centre, width))
        return centre + temperature * width * _shared(torch.randn, centre, share, generator) if temperature else centre


@final
class CellsHead(Head):
    """One of many cells, and within it any place alike: numbers told as a class. Cells are even in ``asinh`` of the numbers,
    so that they are fine near 0 and coarse far out; what is beyond the reach counts as its edge.

    Args:
        width: ``D``.
        channels: ``C``, numbers of a token, all told together: there are ``bins`` to the power of so many cells.
        bins: of each channel.
        reach: largest number.
    """

    def __init__(self, width: int, channels: int, *, bins: int = 33, reach: float = 20.0) -> None:
        super().__init__()
        self.channels, self.bins = channels, bins
        self.reach = math.asinh(reach)
        self.size = 2 * self.reach / bins
        self.project = nn.Linear(width, bins**channels)

    def loss(
        self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"], tokens: Float[Tensor, "B n C"]
    ) -> Float[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        even = tokens.asinh().clamp(-self.reach, self.reach)
        within = even.sinh()
        at = ((even + self.reach) / self.size).long().clamp(max=self.bins - 1)
        cell = torch.zeros_like(at[..., 0])
        for channel in range(self.channels):
            cell = cell * self.bins + at[..., channel]
        log_p = self.project(hidden).float().log_softmax(-1).gather(-1, cell[..., None])[..., 0]
        return self.channels * math.log(self.size) + 0.5 * within.square().log1p().sum(-1) - log_p

    def sample(
        self,
        hidden: Float[Tensor, "B n D"],
        inputs: Float[Tensor, "B n D"],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        share: Int[Tensor, "n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B n C"]:
        """See :class:`~mobtk.contracts.Head`. Temperature 0 takes the middle of the most likely cell."""
        log_p = self.project(hidden).float().log_softmax(-1)
        cell = draw(log_p, temperature, top_k, top_p, min_p, share, generator)
        parts = []
        for _ in range(self.channels):
            parts.append(cell % self.bins)
            cell = cell // self.bins
        at = torch.stack(parts[::-1], -1).to(log_p.dtype)
        within = _shared(torch.rand, at, share, generator) if temperature else torch.full_like(at, 0.5)
        return ((at + within) * self.size - self.reach).sinh()


def _shared(
    make: Callable[..., Tensor],
    like: Float[Tensor, "B n C"],
    share: Int[Tensor, "n"] | None,
    generator: torch.Generator | None,
) -> Float[Tensor, "B n C"]:
    """Random numbers, the same for tokens of a sequence that have the same number in ``share``."""
    b, n, c = like.shape
    groups, index = (None, None) if share is None else share.unique(return_inverse=True)
    numbers = make(b, n if groups is None else len(groups), c, generator=generator, device=like.device)
    return numbers if index is None else numbers[:, index]
