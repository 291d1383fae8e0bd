"""Figures as pictures that lie within a page: no file beside it, no network."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from mobtk.geo import metres_a_degree
from mobtk.storage import PathLike, new_file

BLUE, GREY, RED = "#2b6cb0", "#a0aec0", "#c05621"


def picture(figure: Figure) -> str:
    """A figure as the address of an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def axes(width: float = 6.0, height: float = 3.0) -> tuple[Figure, Any]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=(width, height))
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def plain(axis: Any) -> None:
    """Numbers as one writes them on a logarithmic axis, few enough not to overlap."""
    low, high = sorted(axis.get_view_interval())
    wide = high > 100 * low > 0
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=7))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def density(lat: NDArray[np.float64], lon: NDArray[np.float64], box: Sequence[float]) -> str:
    """How many points lie where, on a logarithmic scale; ``box`` is south, west, north, east."""
    south, west, north, east = box
    tall, wide = max(north - south, 1e-4), max(east - west, 1e-4)
    squeeze = max(0.05, np.cos(np.radians((south + north) / 2)))
    height = float(np.clip(7.0 * tall / (wide * squeeze), 2.5, 9.0))
    figure, ax = axes(7.0, height)
    counts, ys, xs = np.histogram2d(lat, lon, bins=(220, 220), range=((south, south + tall), (west, west + wide)))
    shown = np.ma.masked_equal(counts, 0)
    mesh = ax.pcolormesh(xs, ys, np.ma.log10(shown), cmap="viridis", rasterized=True)
    ax.set_aspect(1 / squeeze)
    ax.set_xlabel("longitude")
    ax.set_ylabel("latitude")
    figure.colorbar(mesh, ax=ax, shrink=0.7, label="points, power of ten")
    return picture(figure)


def histogram(values: NDArray[np.float64], label: str, *, logarithmic: bool = False) -> str:
    """How often which values are."""
    figure, ax = axes()
    values = values[np.isfinite(values)]
    if logarithmic:
        values = values[values > 0]
        low, high = (values.min(), max(values.max(), values.min() * 1.01)) if len(values) else (1.0, 10.0)
        ax.hist(values, bins=np.geomspace(low, high, 60).tolist(), color=BLUE)
        ax.set_xscale("log")
    else:
        ax.hist(values, bins=60, color=BLUE)
    ax.set_xlabel(label)
    ax.set_ylabel("how often")
    return picture(figure)


def bars(labels: Sequence[str], values: Sequence[float], label: str) -> str:
    """A bar for each of some numbers."""
    figure, ax = axes()
    ax.bar(range(len(values)), values, color=BLUE)
    ax.set_xticks(range(len(values)), labels, fontsize=7)
    ax.set_ylabel(label)
    return picture(figure)


def funnel(steps: Sequence[str], points: Sequence[int], users: Sequence[int]) -> str:
    """The share of points and users that each step left."""
    figure, ax = axes(7.0, 0.5 + 0.42 * len(steps))
    y = np.arange(len(steps))
    ax.barh(y - 0.2, np.array(points) / max(1, points[0]), 0.36, color=BLUE, label="points")
    ax.barh(y + 0.2, np.array(users) / max(1, users[0]), 0.36, color=GREY, label="users")
    for i, (p, u) in enumerate(zip(points, users, strict=True)):
        ax.text(1.01, i, f"{p:,} points, {u:,} users", va="center", fontsize=8)
    ax.set_yticks(y, steps, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share that is left")
    ax.legend(loc="lower right", fontsize=8)
    return picture(figure)


def forecasts(table: pd.DataFrame, most: int = 3) -> Figure:
    """History, truth and forecast of the first nodes of a table of :func:`mobtk.forecasting.forecast`."""
    series = list(table.groupby(["node", "channel"], sort=False))[:most]
    figure = Figure(figsize=(8.0, 2.4 * len(series)))
    rows = figure.subplots(len(series), sharex=True, squeeze=False)[:, 0]
    for ax, ((node, channel), part) in zip(rows, series, strict=True):
        ax.spines[["top", "right"]].set_visible(False)
        ax.plot(part["time"], part["history"], color=GREY, label="history")
        ax.plot(part["time"], part["truth"], color=BLUE, label="truth")
        ax.plot(part["time"], part["forecast"], color=RED, label="forecast")
        ax.set_title(f"{node}, {channel}", fontsize=9, loc="left")
    rows[0].legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, ncols=3)
    figure.autofmt_xdate()
    return figure


def cells(frame: geopandas.GeoDataFrame, real: NDArray[np.float64], generated: NDArray[np.float64], what: str) -> str:
    """Shares of cells, real beside generated and their difference, on three maps.

    Args:
        frame: polygons of the cells, EPSG:4326.
        real: share of each cell.
        generated: the same of others.
        what: of which they are shares.
    """
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    shown = frame.assign(real=100 * real, generated=100 * generated, difference=100 * (generated - real))
    seen = shown[(real > 0) | (generated > 0)]
    smallest = float(min(v[v > 0].min() for v in (seen["real"], seen["generated"]) if (v > 0).any()))
    largest = float(max(seen["real"].max(), seen["generated"].max()))
    norm = LogNorm(min(smallest, largest / 10), largest)
    for ax, column in ((left, "real"), (middle, "generated")):
        shown.boundary.plot(ax=ax, color="#e2e8f0", linewidth=0.2)
        seen[seen[column] > 0].plot(column=column, ax=ax, cmap="viridis", norm=norm)
        ax.set_title(column, fontsize=10)
    far = max(float(seen["difference"].abs().max()), 1e-9)
    shown.boundary.plot(ax=right, color="#e2e8f0", linewidth=0.2)
    seen.plot(column="difference", ax=right, cmap="PuOr_r", norm=TwoSlopeNorm(0, -far, far))
    right.set_title("generated - real", fontsize=10)
    west, south, east, north = seen.total_bounds
    edge = 0.03 * max(east - west, north - south)
    for ax in (left, middle, right):
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.set(xlim=(west - edge, east + edge), ylim=(south - edge, north + edge))
        for side in ax.spines.values():
            side.set_visible(False)
    _scale_bar(left, seen.total_bounds)
    scale = figure.colorbar(left.collections[-1], ax=[left, middle], shrink=0.7, location="bottom", aspect=40)
    scale.set_label(f"% of {what}")
    plain(scale.ax.xaxis)
    figure.colorbar(right.collections[-1], ax=right, shrink=0.9, location="bottom", label="percentage points")
    return picture(figure)


def shares(frame: geopandas.GeoDataFrame, share: NDArray[np.float64], what: str) -> str:
    """Shares of cells on a map; ``what`` says of which they are."""
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    ax = figure.subplots()
    seen = frame.assign(share=100 * share)[share > 0]
    largest = float(seen["share"].max())
    norm = LogNorm(min(float(seen["share"].min()), largest / 10), largest)
    seen.plot(column="share", ax=ax, cmap="viridis", norm=norm)
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    ax.spines[:].set_visible(False)
    _scale_bar(ax, seen.total_bounds)
    scale = figure.colorbar(ax.collections[-1], ax=ax, shrink=0.7, location="bottom", label=f"% of {what}")
    plain(scale.ax.xaxis)
    return picture(figure)


def _scale_bar(ax: Any, bounds: Sequence[float]) -> None:
    """A bar of so many kilometres, at most a third of the width, in the lower left of a map in degrees."""
    west, south, east, _ = bounds
    degree = metres_a_degree(south)[0] / 1000
    most = (east - west) * degree / 3
    power = 10.0 ** np.floor(np.log10(max(most, 1e-3)))
    km = max((m * power for m in (1, 2, 5) if m * power <= most), default=power)
    below = ax.get_ylim()[0]
    ax.plot([west, west + km / degree], [below, below], color="black", linewidth=2, clip_on=False)
    ax.annotate(f"{km:g} km", (west, below), (0, -4), textcoords="offset points", va="top", fontsize=8)


def curves(
    x: Sequence[float] | NDArray[Any],
    lines: Sequence[tuple[str, NDArray[np.float64]]],
    label: str,
    unit: str,
    *,
    logarithmic: bool = False,
    ticks: Sequence[tuple[float, str]] = (),
) -> str:
    """Real, generated and up to two others over one axis."""
    figure, ax = axes(6.4, 2.9)
    for (name, y), colour, style in zip(lines, ("#000000", BLUE, RED, GREY), ("-", "--", ":", "-"), strict=False):
        shown = np.where(y > 0, y, np.nan) if logarithmic else y
        ax.plot(x, shown, color=colour, linestyle=style, label=name, marker=".", markersize=3)
    if logarithmic:
        ax.set_yscale("log")
        plain(ax.yaxis)
    if ticks:
        ax.set_xticks([t for t, _ in ticks], [name for _, name in ticks], fontsize=8)
    ax.set_xlabel(label)
    ax.set_ylabel(unit)
    ax.legend(frameon=False, fontsize=8)
    return picture(figure)


def agreement(real: NDArray[np.float64], generated: NDArray[np.float64], what: str) -> str:
    """Pairs of numbers about the diagonal, on logarithmic scales; those that are 0 on one side stand at its edge."""
    figure, ax = axes(4.4, 4.2)
    top = float(max(real.max(), generated.max(), 2))
    ax.plot([0.5, top], [0.5, top], color=GREY, linewidth=1)
    ax.scatter(np.maximum(real, 0.5), np.maximum(generated, 0.5), s=8, alpha=0.35, color=BLUE, linewidths=0)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=f"{what}, real",
        ylabel=f"{what}, generated",
        xlim=(0.4, top * 1.3),
        ylim=(0.4, top * 1.3),
    )
    for axis in (ax.xaxis, ax.yaxis):
        plain(axis)
    return picture(figure)


def nodes(frame: geopandas.GeoDataFrame, values: NDArray[np.float64], label: str) -> str:
    """A number at each node, on a map."""
    figure, ax = axes(6.4, 4.6)
    frame.assign(value=values).plot(column="value", ax=ax, cmap="viridis", legend=True, markersize=30,
                                    legend_kwds={"label": label, "shrink": 0.8}, missing_kwds={"color": GREY})  # fmt: skip
    ax.set(xlabel="longitude", ylabel="latitude")
    ax.locator_params(nbins=5)
    return picture(figure)


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which those who do not see all colours can tell apart."""
MARKERS = "osD^vPX*"


def comparison(result: Mapping[str, Any], out: PathLike) -> None:
    """Score against cost of a result of :func:`mobtk.compare`, with the spread over seeds, as a PNG."""
    cost, label = "flop", "operations of a pass, millions"
    if result["match"] == "compute":
        cost, label = "parameters", "parameters, millions"
    figure, ax = axes(7.0, 4.2)
    for i, row in enumerate(result["rows"]):
        name = ", ".join(f"{k}={v}" for k, v in row["choice"].items())
        mark = {"fmt": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)]}
        ax.errorbar(row[cost] / 1e6, row["mean"], yerr=row["std"] or 0, capsize=4, label=name, **mark)
    if "floor" in result["beside"]:
        ax.axhline(result["beside"]["floor"], color="#718096", linestyle="--", linewidth=1, label="real against real")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.set_xlabel(label)
    ax.set_ylabel(result["measure"].replace(" of ", "\nof ", 1))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    with new_file(out) as draft:
        figure.savefig(draft, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
