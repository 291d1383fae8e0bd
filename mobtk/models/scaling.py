"""Values of a field with mean 0 and standard deviation 1, and back."""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from mobtk.data.field import VALUES, Field
from mobtk.recipe import Forecast

LEAST = 1e-2
"""Of a standard deviation of 1, what the deviation of a window is at least: a window that hardly moves is not blown up."""


@final
class Scaler(nn.Module):
    """Measures a field over its training split, and scales windows of it: see :class:`mobtk.recipe.Forecast`.

    Args:
        settings: ``scale``, ``season`` and ``window``.
        slots: of the season; see :func:`slots`.
        nodes: ``N``.
        channels: ``C``.
    """

    def __init__(self, settings: Forecast, slots: int, nodes: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(slots, nodes, channels))
        self.register_buffer("std", torch.ones(nodes, channels))

    def fit(self, field: Field) -> "Scaler":
        """Measure the training split; steps where nothing was measured do not count."""
        which, end = slots(field, self.settings.season)[0], field.split("train")[1]
        shape = self.mean.shape
        rows = max(1, VALUES // self.std.numel())
        count, total = np.zeros(shape), np.zeros(shape)
        square = np.zeros(shape[1:])
        for first in range(0, end, rows):
            values = np.asarray(field.values[first : min(end, first + rows)], np.float64)
            known = ~np.isnan(values)
            at = which[first : first + len(values)]
            np.add.at(count, at, known)
            np.add.at(total, at, np.where(known, values, 0))
        pool = (0, 1) if self.settings.scale == "field" else (0,)
        general = total.sum(pool, keepdims=True) / np.maximum(count.sum(pool, keepdims=True), 1)
        seasonal = self.settings.season != "none"
        mean = np.where(count > 0, total / np.maximum(count, 1), general) if seasonal else np.broadcast_to(general, shape)
        for first in range(0, end, rows):
            values = np.asarray(field.values[first : min(end, first + rows)], np.float64)
            square += np.nansum(np.square(values - mean[which[first : first + len(values)]]), axis=0)
        nodes = tuple(p - 1 for p in pool if p)
        known_steps = count.sum(0)
        if nodes:
            square, known_steps = (x.sum(nodes, keepdims=True) for x in (square, known_steps))
        std = np.sqrt(square / np.maximum(known_steps, 1))
        std[std < 1e-6 * np.maximum(np.abs(general[0]), 1)] = 1.0  # what never changes stays as it is
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(np.broadcast_to(std, shape[1:])))
        return self

    def scale(self, values: Float[Tensor, "B t N C"], at: Int[Tensor, "B t"]) -> Float[Tensor, "B t N C"]:
        """Scaled values; what is missing stays NaN."""
        return (values - self.mean[at]) / self.std

    def unscale(self, values: Float[Tensor, "B t N C"], at: Int[Tensor, "B t"]) -> Float[Tensor, "B t N C"]:
        """The other way round."""
        return values * self.std + self.mean[at]

    def window(
        self, history: Float[Tensor, "B T N C"]
    ) -> tuple[Float[Tensor, "B T N C"], Float[Tensor, "B 1 N C"], Float[Tensor, "B 1 N C"]]:
        """Scaled values of a window without gaps, and what to multiply its forecast with and to add."""
        known = ~history.isnan()
        filled = torch.where(known, history, 0.0)
        n = known.sum(1, keepdim=True).clamp(min=1)
        shift, width = torch.zeros_like(filled[:, :1]), torch.ones_like(filled[:, :1])
        if self.settings.window == "last":
            steps = torch.arange(1, history.shape[1] + 1, device=history.device)[:, None, None]
            latest = (steps * known).argmax(1, keepdim=True)
            shift = filled.gather(1, latest)
        elif self.settings.window == "mean":
            shift = filled.sum(1, keepdim=True) / n
            spread = torch.where(known, filled - shift, 0.0)
            width = (spread.square().sum(1, keepdim=True) / n).sqrt().clamp(min=LEAST)
        return torch.where(known, (filled - shift) / width, 0.0), width, shift


def measure(field: Field, settings: Forecast) -> Scaler:
    """The scaler of a field, fitted."""
    _, nodes, channels = field.info.shape
    return Scaler(settings, slots(field, settings.season)[1], nodes, channels).fit(field)


def slots(field: Field, season: str, steps: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], int]:
    """``(T,)`` the place in the season of each step of a field, or of others beyond it; and how many there are."""
    day, clock = field.steps_per_day, field.clock(steps)
    if season == "none":
        return np.zeros(len(clock), np.int64), 1
    if season == "day":
        return clock[:, 0], day
    return clock[:, 1] * day + clock[:, 0], 7 * day
