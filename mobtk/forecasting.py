"""Forecasting: the next steps of a field, and how good a forecaster is beside baselines on the same windows."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mobtk._version import __version__
from mobtk.baselines.forecasts import fit_forecasts
from mobtk.data.field import Field
from mobtk.errors import BadInput
from mobtk.lessons import Windows
from mobtk.metrics.cards import CARDS
from mobtk.metrics.forecast import METRICS, PUBLISHED_BATCH, ForecastErrors, PublishedErrors
from mobtk.models.forecaster import Forecaster
from mobtk.models.scaling import measure, slots
from mobtk.recipe import Forecast
from mobtk.runs import Run, find_device, open_run
from mobtk.storage import PathLike

BATCH = 32
"""Windows that are forecast at once."""


def evaluate_forecaster(
    run: Run | PathLike,
    *,
    data: PathLike | None = None,
    split: str = "test",
    baselines: bool = True,
    published: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Score the forecasts of a run over all windows of a split, beside baselines. ``mobtk evaluate`` does the same.

    Args:
        run: a forecaster, or its folder.
        data: another field of the same nodes, channels and step.
        split: whose steps are foretold.
        baselines: also score the baselines.
        published: errors as the authors' code of STM3 computes them: see :class:`mobtk.metrics.forecast.PublishedErrors`.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        what goes into the result file: ``scores`` by name of the source and metric over the whole horizon, ``by_step`` the
        same at each step of it, ``by_node`` the mean absolute error at each node; the cards, the split and versions.
    """
    run = open_run(run, "forecast")
    settings, field = run.recipe.forecast, run.field(data)
    where = find_device(device)
    model = run.forecaster().to(where)
    windows = Windows(field, settings.history, settings.horizon, settings.season)
    starts = field.windows(split, settings.history, settings.horizon)
    sources: dict[str, Callable[[NDArray[np.int64]], NDArray[Any]]] = {
        "model": lambda part: _forecast(model, windows, part, where)
    }
    if baselines:
        sources |= fit_forecasts(field, settings.history, settings.horizon)
    std = measure(field, Forecast()).std.double().numpy()
    kind, batch = (PublishedErrors, PUBLISHED_BATCH) if published else (ForecastErrors, BATCH)
    found = {name: kind(settings.horizon, std) for name in sources}
    parts = [starts[i : i + batch] for i in range(0, len(starts), batch)]
    for part in tqdm(parts, desc="evaluate", unit="batch", leave=False, disable=None):
        truth = field.values[part[:, None] + settings.history + np.arange(settings.horizon)]
        for name, source in sources.items():
            found[name].add(truth, source(part))
    result = {
        "task": "forecast",
        "n": len(starts),
        "split": split,
        "history": settings.history,
        "horizon": settings.horizon,
        "step": field.info.step,
        "dataset": {"path": str(field.path), "name": field.info.name, "fingerprint": field.fingerprint},
        "scores": {name: errors.scores() for name, errors in found.items()},
        "by_step": {name: errors.by_step() for name, errors in found.items()},
        "by_node": {name: errors.by_node() for name, errors in found.items()},
        "published": published,
        "cards": {name: msgspec.to_builtins(CARDS[name]) for name in METRICS},
        "mobtk": __version__,
    }
    run.write_result("forecast-published" if published else "forecast", result)
    return result


def table(result: dict[str, Any], steps: Sequence[int] | None = None) -> str:
    """A result as text: a row a source, over the whole horizon and the MAE and RMSE at some steps of it."""
    horizon = result["horizon"]
    steps = steps or sorted({max(1, horizon // 4), max(1, horizon // 2), horizon})
    if min(steps) < 1 or max(steps) > horizon:
        raise BadInput(
            f"the forecasts reach 1 to {horizon} steps ahead; choose from those, not {', '.join(map(str, steps))}"
        )
    heads = [*METRICS, *(f"{metric}@{step}" for step in steps for metric in ("mae", "rmse"))]
    lines = [" " * 20 + "".join(f"{head:>12}" for head in heads)]
    for name, scores in result["scores"].items():
        at = result["by_step"][name]
        values = [*scores.values(), *(at[metric][step - 1] for step in steps for metric in ("mae", "rmse"))]
        lines.append(f"{name:<20}" + "".join(f"{value:>12.4g}" for value in values))
    return "\n".join(lines)


def forecast(
    run: Run | PathLike,
    *,
    at: str | None = None,
    nodes: Sequence[str] | None = None,
    data: PathLike | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """The forecast of a run from one moment on. ``mobtk forecast`` does the same.

    Args:
        run: a forecaster, or its folder.
        at: the first moment that is foretold, in local time, or ``end``: the first after the field. By default the last one
            from which on the truth is known for the whole horizon.
        nodes: names of nodes; all by default.
        data: another field of the same nodes, channels and step.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        a row a step, node and channel: ``time``, ``node``, ``channel``, ``history`` or ``truth`` (NaN where not known) and
        ``forecast`` (NaN in the history).

    Raises:
        BadInput: there is no such moment or node.
    """
    run = open_run(run, "forecast")
    settings, field = run.recipe.forecast, run.field(data)
    history, horizon = settings.history, settings.horizon
    names = field.nodes["name"].astype(str).tolist()
    if unknown := [n for n in nodes or () if n not in names]:
        raise BadInput(f"field {field.path} has no node {unknown[0]!r}; it has {', '.join(names[:8])} ...")
    first = _step(field, at, history, horizon)
    model = run.forecaster()
    where = find_device(device)
    steps = np.arange(first - history, first + horizon)
    inside = steps < len(field)
    values = np.full((len(steps), *field.info.shape[1:]), np.nan, np.float32)
    values[inside] = field.values[steps[inside]]
    slots_of = slots(field, settings.season, steps)[0]
    with torch.inference_mode():
        out = model.to(where)(
            torch.from_numpy(values[None, :history]).to(where), torch.from_numpy(slots_of[None]).to(where)
        )[0]
    told = np.full_like(values, np.nan)
    told[history:] = out.cpu().numpy()
    times = field.times()[0] + steps * pd.Timedelta(field.info.step)
    keep = [names.index(n) for n in nodes] if nodes else list(range(len(names)))
    channels = field.info.channels
    index = pd.MultiIndex.from_product([times, [names[i] for i in keep], channels], names=["time", "node", "channel"])
    past = np.repeat(np.arange(len(steps)) < history, len(keep) * len(channels))
    known = values[:, keep].ravel()
    return pd.DataFrame(
        {
            "history": np.where(past, known, np.nan),
            "truth": np.where(past, np.nan, known),
            "forecast": told[:, keep].ravel(),
        },
        index=index,
    ).reset_index()


def _step(field: Field, at: str | None, history: int, horizon: int) -> int:
    """The step of the first moment that is foretold."""
    times, length = field.times(), pd.Timedelta(field.info.step)
    step, rest = len(field) if at == "end" else len(field) - horizon, pd.Timedelta(0)
    if at not in (None, "end"):
        try:
            moment = pd.Timestamp(at)
        except ValueError:
            raise BadInput(f"--at {at} is no moment; try 2012-03-06T08:00, or end") from None
        step, rest = divmod(moment.tz_localize(None) - times[0], length)
    if len(field) < history:
        raise BadInput(f"field {field.path} has {len(field)} steps, fewer than the {history} that a forecast reads")
    if rest or not history <= step <= len(field):
        begin = times[0] + step * length if at in (None, "end") else at
        raise BadInput(
            f"the forecast would begin at {begin}, which is not one of the steps of {field.info.step} from "
            f"{times[0] + history * length} to {times[-1] + length} that have {history} steps before them"
        )
    return int(step)


@torch.inference_mode()
def _forecast(model: Forecaster, windows: Windows, starts: NDArray[np.int64], where: torch.device) -> NDArray[np.float32]:
    values, at = windows[starts]
    history = values[:, : windows.length - model.horizon]
    out: NDArray[np.float32] = model(history.to(where), at.to(where)).cpu().numpy()
    return out
