"""Errors of forecasts, gathered window by window; see the cards ``mae``, ``rmse``, ``mape``, ``wmape`` and ``scaled_*``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("mae", "rmse", "mape", "wmape", "scaled_mae", "scaled_mse")

ZERO = 1e-6
"""A true value that is nearer to nothing is left out of MAPE, which divides by it."""

PUBLISHED_BATCH = 64
"""Windows of a batch in the authors' code of STM3."""


class ForecastErrors:
    """Sums over all windows, nodes and channels, for each step of the horizon.

    Args:
        horizon: ``H``.
        std: ``(N, C)`` standard deviation of each node over the training split, for the scaled errors.
    """

    def __init__(self, horizon: int, std: NDArray[Any]) -> None:
        self.std = std
        names = ("n", "abs", "square", "root", "share", "n_share", "truth", "z", "z_square")
        self.sums = {name: np.zeros(horizon) for name in names}
        self.of_nodes = np.zeros((2, len(std)))

    def add(self, truth: NDArray[Any], forecast: NDArray[Any]) -> None:
        """Count a batch of windows ``(B, H, N, C)``; where the truth is NaN nothing is counted."""
        known = ~np.isnan(truth)
        error = np.where(known, forecast.astype(np.float64) - truth, 0.0)
        real = np.where(known, truth, 0.0)
        share, divisible = self.shares(error, real)
        parts = {
            "n": known,
            "abs": np.abs(error),
            "square": error**2,
            "share": share,
            "n_share": divisible,
            "truth": np.abs(real),
            "z": np.abs(error) / self.std,
            "z_square": (error / self.std) ** 2,
        }
        found = {name: values.sum((0, 2, 3)) for name, values in parts.items()}
        found["root"] = np.sqrt(found["square"] / np.maximum(found["n"], 1)) * found["n"]
        for name, values in found.items():
            self.sums[name] += values
        self.of_nodes += parts["abs"].sum((0, 1, 3)), known.sum((0, 1, 3))

    def by_node(self) -> list[float]:
        """Mean absolute error of each node; NaN where nothing was measured."""
        error, n = self.of_nodes
        return [float(e / k) if k else float("nan") for e, k in zip(error, n, strict=True)]

    def shares(self, error: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Errors as shares of the truth, and where these are defined."""
        divisible = np.abs(truth) > ZERO
        return np.abs(error) / np.where(divisible, np.abs(truth), 1.0) * divisible, divisible

    def scores(self) -> dict[str, float]:
        """Each metric over the whole horizon."""
        return _scores({name: values.sum() for name, values in self.sums.items()})

    def by_step(self) -> dict[str, list[float]]:
        """Each metric at each step of the horizon."""
        steps = [_scores({k: v[i] for k, v in self.sums.items()}) for i in range(len(self.sums["n"]))]
        return {name: [step[name] for step in steps] for name in METRICS}


class PublishedErrors(ForecastErrors):
    """The same as the authors' code of STM3 computes them (Chen et al. 2025), where that differs.

    RMSE is the mean over batches and steps of the root of each one's mean square, weighted by its size: by Jensen's
    inequality at most the root over all values. MAPE divides by the truth plus .001, where the truth is above 0. (Theirs
    counts what was not measured as 0 in the others; here it is left out.)
    """

    def shares(self, error: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """See above."""
        above = truth > 0
        return np.abs(error) / np.where(above, truth + 1e-3, 1.0) * above, above

    def scores(self) -> dict[str, float]:
        """See above."""
        return {**super().scores(), "rmse": float(self.sums["root"].sum() / max(self.sums["n"].sum(), 1))}

    def by_step(self) -> dict[str, list[float]]:
        """See above."""
        return {**super().by_step(), "rmse": (self.sums["root"] / np.maximum(self.sums["n"], 1)).tolist()}


def _scores(sums: dict[str, float]) -> dict[str, float]:
    def over(name: str, count: str = "n") -> float:
        return float(sums[name] / sums[count]) if sums[count] else float("nan")

    found = (over("abs"), over("square") ** 0.5, over("share", "n_share"), over("abs", "truth"), over("z"), over("z_square"))
    return dict(zip(METRICS, found, strict=True))
