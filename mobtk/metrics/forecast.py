"""Errors of forecasts, gathered window by window; see the cards ``mae``, ``rmse``, ``mape``, ``wmape`` and ``scaled_*``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("mae", "rmse", "mape", "wmape", "scaled_mae", "scaled_mse")

ZERO = 1e-6
"""A true value that is nearer to nothing is left out of MAPE, which divides by it."""


class ForecastErrors:
    """Sums over all windows, nodes and channels, for each step of the horizon.

    Args:
        horizon: ``H``.
        std: ``(N, C)`` standard deviation of each node over the training split, for the scaled errors.
    """

    def __init__(self, horizon: int, std: NDArray[Any]) -> None:
        self.std = std
        self.sums = {
            name: np.zeros(horizon) for name in ("n", "abs", "square", "share", "n_share", "truth", "z", "z_square")
        }

    def add(self, truth: NDArray[Any], forecast: NDArray[Any]) -> None:
        """Count some windows ``(B, H, N, C)``; where the truth is NaN nothing is counted."""
        known = ~np.isnan(truth)
        error = np.where(known, forecast.astype(np.float64) - truth, 0.0)
        size = np.where(known, np.abs(truth), 0.0)
        divisible = size > ZERO
        parts = {
            "n": known,
            "abs": np.abs(error),
            "square": error**2,
            "share": np.abs(error) / np.where(divisible, size, 1.0) * divisible,
            "n_share": divisible,
            "truth": size,
            "z": np.abs(error) / self.std,
            "z_square": (error / self.std) ** 2,
        }
        for name, values in parts.items():
            self.sums[name] += values.sum((0, 2, 3))

    def scores(self) -> dict[str, float]:
        """Each metric over the whole horizon."""
        return _scores({name: values.sum() for name, values in self.sums.items()})

    def by_step(self) -> dict[str, list[float]]:
        """Each metric at each step of the horizon."""
        steps = [_scores({k: v[i] for k, v in self.sums.items()}) for i in range(len(self.sums["n"]))]
        return {name: [step[name] for step in steps] for name in METRICS}


def _scores(sums: dict[str, float]) -> dict[str, float]:
    def over(name: str, count: str = "n") -> float:
        return float(sums[name] / sums[count]) if sums[count] else float("nan")

    found = (over("abs"), over("square") ** 0.5, over("share", "n_share"), over("abs", "truth"), over("z"), over("z_square"))
    return dict(zip(METRICS, found, strict=True))
