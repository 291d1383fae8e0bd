"""Pages about data: what a file is, what a dataset holds."""

from typing import Any

import numpy as np

from mobtk import kernels
from mobtk.data.check import Report
from mobtk.data.dataset import Dataset
from mobtk.data.moments import local_seconds
from mobtk.data.points import Points
from mobtk.data.tools import card
from mobtk.report import figures
from mobtk.report.page import Section, write_page
from mobtk.storage import PathLike


def check_page(report: Report, points: Points, out: PathLike) -> None:
    """The page of ``mobtk data check``: the report, a map, and histograms.

    Args:
        report: what was found.
        points: by user and time, that it is of.
        out: HTML file.
    """
    columns = [("column", "likely", "type", "missing", "such as")]
    columns += [(c.name, c.likely or "-", c.type, f"{c.missing:.1%}", ", ".join(c.examples)) for c in report.columns]
    sections = [Section("What it is", code=report.text())]
    if report.columns:
        sections.append(Section("Columns", rows=columns))
    if len(points) and report.area is not None:
        sections.append(
            Section("Where", pictures=[(figures.density(points.lat, points.lon, report.area), "points by position")])
        )
        sections.append(Section("When", pictures=_times(points, report)))
        sections.append(Section("Sampling", pictures=_sampling(points)))
    write_page(out, f"{' '.join(report.source)}: what is it?", sections)


def _times(points: Points, report: Report) -> list[tuple[str, str]]:
    zone = report.timezone or "UTC"
    seconds = local_seconds(points.time, zone)
    hours = np.bincount(seconds % 86_400 // 3600, minlength=24)
    days = np.bincount((seconds // 86_400 + 3) % 7, minlength=7)
    names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    return [
        (figures.bars([str(h) for h in range(24)], hours.tolist(), "points"), f"points by hour of the day in {zone}"),
        (figures.bars(names, days.tolist(), "points"), "points by day of the week"),
    ]


def _sampling(points: Points) -> list[tuple[str, str]]:
    same = points.user[1:] == points.user[:-1]
    step = np.diff(points.time)[same] / 1e6
    metres = kernels.distance(points.lat[:-1], points.lon[:-1], points.lat[1:], points.lon[1:])[same]
    counts = np.bincount(points.user)
    found = [(figures.histogram(counts[counts > 0].astype(float), "points", logarithmic=True), "points of a user")]
    if len(step):
        moving = (step > 0) & (metres > 0)
        found.append((figures.histogram(step, "seconds", logarithmic=True), "time between successive points of a user"))
        speeds = metres[moving] / step[moving] * 3.6
        found.append(
            (figures.histogram(speeds, "km/h", logarithmic=True), "speed between successive points, where they differ")
        )
    return found


def dataset_page(dataset: Dataset, out: PathLike) -> None:
    """The data card of a dataset as a page: what ``mobtk data info`` tells, its funnel drawn, and where people are."""
    told = card(dataset)
    hidden = ("funnel", "settings", "path")
    facts = [("what", "is"), *((k.replace("_", " "), _plain(v)) for k, v in told.items() if k not in hidden)]
    losses = dataset.info.funnel
    steps = [("step", "users", "points", "sequences", "what was lost")]
    steps += [
        (f.step, f"{f.users:,}", f"{f.points:,}", "" if f.sequences is None else f"{f.sequences:,}", f.why) for f in losses
    ]
    drawn = figures.funnel([f.step for f in losses], [f.points for f in losses], [f.users for f in losses])
    mapper = dataset.mapper()
    share = np.bincount(dataset.cells[dataset.cells >= 0], minlength=mapper.n_cells[0]) / dataset.cells.size
    map_ = figures.shares(mapper.geometry(), share, "all steps")
    sections = [
        Section("Card", rows=facts),
        Section("Funnel", rows=steps, pictures=[(drawn, "what each step of the preparation left")]),
        Section("Where people are", pictures=[(map_, "steps of all sequences by cell")]),
        Section("Settings", rows=[("setting", "value"), *((k, _plain(v)) for k, v in dataset.info.settings.items())]),
    ]
    write_page(out, f"Dataset {dataset.info.name}", sections)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
