"""Forecasts that need no deep model: last value, historical average, seasonal naive, ridge regression."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mobtk.data.field import Field, spread
from mobtk.models.scaling import measure, slots
from mobtk.recipe import Forecast

Forecasts = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From first steps of windows to forecasts ``(B, H, N, C)``."""

PENALTIES = (1e-4, 1e-2, 1.0)
"""Of the ridge regression, as shares of the mean square of its inputs; the best on validation is taken."""

MOST_LEARNED = 2000
"""Windows that the ridge regression learns from, evenly spread."""


def fit_forecasts(field: Field, history: int, horizon: int) -> dict[str, Forecasts]:
    """The baselines of a field, by name; each knows the training split and what lies before the horizon.

    The season is a week where training holds two of them, else a day.
    """
    day = field.steps_per_day
    season = "week" if field.split("train")[1] >= 14 * day else "day"
    scaler, means = measure(field, Forecast()), _Means(field, season)
    histories = _Histories(field, history, scaler.mean[0].double().numpy())
    return {
        "last value": lambda starts: np.repeat(histories[starts][:, -1:], horizon, axis=1),
        "historical average": lambda starts: means[starts[:, None] + history + np.arange(horizon)],
        "seasonal naive": _seasonal(field, history, horizon, means, day * (7 if season == "week" else 1)),
        "ridge": _ridge(field, horizon, histories, scaler.std.double().numpy()),
    }


class _Means:
    """Means of the training split at each place of a season, by step."""

    def __init__(self, field: Field, season: str) -> None:
        self.slots = slots(field, season)[0]
        self.means: NDArray[np.float64] = measure(field, Forecast(season=season)).mean.double().numpy()

    def __getitem__(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.means[self.slots[steps]]


class _Histories:
    """``(B, T, N, C)`` histories; what is missing is the value before it, or the mean of the training split."""

    def __init__(self, field: Field, history: int, means: NDArray[np.float64]) -> None:
        self.field, self.history, self.means = field, history, means

    def __getitem__(self, starts: NDArray[np.int64]) -> NDArray[np.float64]:
        values = self.field.values[starts[:, None] + np.arange(self.history)].astype(np.float64)
        if not np.isnan(values).any():
            return values
        steps = np.arange(self.history)[None, :, None, None]
        latest = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=1)
        found = np.take_along_axis(values, np.maximum(latest, 0), axis=1)
        return np.where(latest >= 0, found, self.means)


def _seasonal(field: Field, history: int, horizon: int, means: _Means, period: int) -> Forecasts:
    """What was measured at the same place of the last season that is over; the historical average where nothing was."""

    def forecast(starts: NDArray[np.int64]) -> NDArray[np.float64]:
        now = starts[:, None] + history
        steps = now + np.arange(horizon)
        seasons = -(-(steps - now + 1) // period)
        before = steps - seasons * period
        values = field.values[np.maximum(before, 0)].astype(np.float64)
        return np.where(np.isnan(values) | (before < 0)[..., None, None], means[steps], values)

    return forecast


def _ridge(field: Field, horizon: int, histories: _Histories, std: NDArray[np.float64]) -> Forecasts:
    """One linear map for all nodes and channels, from a window minus its last value to the horizon minus it.

    As NLinear (Zeng et al. 2023, https://arxiv.org/abs/2205.13504) in closed form.
    """
    history = histories.history

    def pairs(starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x = histories[starts] / std
        y = field.values[starts[:, None] + history + np.arange(horizon)] / std
        x, y = x - x[:, -1:], y - x[:, -1:]
        x, y = (a.transpose(0, 2, 3, 1).reshape(-1, a.shape[1]) for a in (x, y))
        known = ~np.isnan(y).all(1)
        return x[known], y[known]

    def some(split: str, most: int) -> list[NDArray[np.int64]]:
        starts = spread(field.windows(split, history, horizon), most)
        return np.array_split(starts, -(-len(starts) // 64))

    gaps = field.info.missing > 0
    xx = np.zeros((horizon if gaps else 1, history, history))  # of each step by itself, where its gaps are its own
    xy = np.zeros((history, horizon))
    for part in some("train", MOST_LEARNED):
        x, y = pairs(part)
        xy += x.T @ np.nan_to_num(y)
        if not gaps:
            xx[0] += x.T @ x
            continue
        for step in range(horizon):
            seen = x[~np.isnan(y[:, step])]
            xx[step] += seen.T @ seen
    size = np.maximum(np.trace(xx, axis1=1, axis2=2) / history, 1e-12)[:, None, None]
    fits = []
    for penalty in PENALTIES:
        held = xx + penalty * size * np.eye(history)
        fits.append(np.linalg.solve(held, xy.T[..., None])[..., 0].T if gaps else np.linalg.solve(held[0], xy))
    valid = [pairs(part) for part in some("valid", 256)]
    errors = [sum(float(np.nansum(np.abs(x @ w - y))) for x, y in valid) for w in fits]
    best = fits[int(np.argmin(errors))]

    def forecast(starts: NDArray[np.int64]) -> NDArray[np.float64]:
        x = histories[starts]
        last = x[:, -1:]
        return np.einsum("btnc,th->bhnc", (x - last) / std, best, optimize=True) * std + last

    return forecast
