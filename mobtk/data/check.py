"""What is this file? Columns, units, zone, axes, sampling, faults, and the command that prepares it.

Everything here is a guess with its reason beside it; nothing is changed. Figures are of the rows that were read, which are
pieces spread over the files up to the number asked for; the report says how many of how many.
"""

import math
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from msgspec import Struct, field
from numpy.typing import NDArray

from mobtk import kernels
from mobtk.data.clean import Rules, in_order
from mobtk.data.formats import FORMATS, Reading
from mobtk.data.guess import STAND_IN, Column, guess
from mobtk.data.moments import local_seconds, origin_us, zone_at
from mobtk.data.points import UNREADABLE, Points, concat
from mobtk.data.sources import begin, estimate_rows, pieces, read_piece
from mobtk.errors import BadInput
from mobtk.storage import PathLike

ROWS = 3_000_000
"""Rows that are read by default."""
FAST = 300.0
"""km/h above which a move is told as a jump."""


class Report(Struct):
    """What ``mobtk data check`` found. ``None`` where it could not be told.

    Args:
        source: what was looked at; ``files`` of them with ``bytes``.
        format: name in :data:`~mobtk.data.sources.FORMATS`, and its ``title``.
        rows: of all files, about.
        read: rows that the figures are of.
        columns: of the first file.
        reading: how rows were made points.
        users, span: different users, and first and last moment (UTC).
        area: south, west, north, east of the central 99.8 % of positions.
        timezone: at the middle of the positions.
        quiet_hour: hour of local time with fewest points.
        per_user: quantiles 0.05, 0.5, 0.95 of points of a user.
        step: the same of seconds between successive points of a user.
        order: whether rows are sorted ``by user and time``, ``by user``, ``by time`` or ``not``.
        faults: share of rows with each.
        gaps: share of the time between the first and last point of a user that lies in gaps above an hour.
        coverage: for periods and steps, the share of users who keep a sequence at half coverage, and sequences.
        notes: what one should know, a sentence each.
        memory, seconds: what preparing all rows will take, about (GB; on one core, as fast as this check read).
        command: that prepares it.
    """

    source: list[str]
    files: int
    bytes: int
    format: str
    title: str
    rows: int
    read: int = 0
    columns: list[Column] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)
    users: int | None = None
    span: list[str] | None = None
    area: list[float] | None = None
    timezone: str | None = None
    quiet_hour: int | None = None
    per_user: list[float] | None = None
    step: list[float] | None = None
    order: str | None = None
    faults: dict[str, float] = field(default_factory=dict)
    gaps: float | None = None
    coverage: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    memory: float = 0.0
    seconds: float = 0.0
    command: str | None = None

    def text(self) -> str:
        """The report in words."""
        lines = [
            f"{' '.join(self.source)}: {self.title}",
            f"{self.files:,} file{'s' if self.files != 1 else ''}, {_bytes(self.bytes)}, about {self.rows:,} rows"
            + (f" ({self.read:,} read for what follows)" if self.read else ""),
            "",
        ]
        if self.columns:
            width = max(len(c.name) for c in self.columns)
            for c in self.columns:
                missing = f"{c.missing:.1%} missing, " if c.missing else ""
                lines.append(
                    f"  {c.name:<{width}}  {c.likely or '-':<10} {c.type:<12} {missing}{', '.join(c.examples)}"[:150]
                )
            lines.append("")
        if self.users is not None:
            lines.append(f"users      {self.users:,}; points a user (5, 50, 95 %): {_three(self.per_user)}")
        if self.span is not None:
            lines.append(f"time       {self.span[0]} to {self.span[1]} UTC; fewest points at {self.quiet_hour} h local time")
        if self.area is not None:
            s, w, n, e = self.area
            lines.append(
                f"area       latitude {s:.4f} to {n:.4f}, longitude {w:.4f} to {e:.4f} (99.8 % of points); {self.timezone}"
            )
        if self.step is not None:
            lines.append(f"step       seconds between points of a user (5, 50, 95 %): {_three(self.step)}")
            lines.append(f"gaps       {self.gaps:.0%} of the time of a user lies in gaps above an hour")
            lines.append(f"order      rows are {'not sorted' if self.order == 'not' else f'sorted {self.order}'}")
        for fault, share in self.faults.items():
            if share:
                lines.append(f"fault      {share:.3%} of rows {fault}")
        for kept in self.coverage:
            lines.append(
                f"coverage   {kept['period']:<5} of {kept['step']:<6}: {_share(kept['users'])} of users keep a sequence at "
                f"half coverage, {kept['sequences']:,} in all"
            )
        lines += [f"note       {note}" for note in self.notes]
        if self.command:
            lines += [
                "",
                f"preparing all of it takes about {self.memory:.1f} GB and {_duration(self.seconds)} on one core:",
                "",
            ]
            lines.append(self.command)
        return "\n".join(lines)


def check(
    sources: PathLike | Sequence[PathLike], *, reading: Reading | None = None, timezone: str | None = None, rows: int = ROWS
) -> tuple[Report, Points]:
    """Find out what files of points are. ``mobtk data check`` does the same.

    Args:
        sources: files, folders, globs.
        reading: what is known already.
        timezone: where the people are; found by position.
        rows: how many to read.

    Returns:
        The report, and the points it is of, by user and time.

    Raises:
        BadInput: there is nothing to read, or no sense in it, with what was found.
    """
    wish = reading or Reading(format="auto")
    names = [str(s) for s in ([sources] if isinstance(sources, (str, os.PathLike)) else sources)]
    files, known = begin(sources, wish)
    form = known.format
    size = sum(f.stat().st_size for f in files)
    report = Report(names, len(files), size, form, FORMATS[form].title, 0)
    if FORMATS[form].note:
        report.notes.append(FORMATS[form].note)
    if form in ("table", "gpx"):
        known, report.columns, notes = guess(files[0], known)
        report.notes += notes
    report.rows = estimate_rows(files, known)
    report.reading = {k: v for k, v in msgspec.to_builtins(known).items() if v is not None}
    if known.user is None or known.time is None or (known.lat is None and known.places is None):
        lacking = [r for r in ("user", "time", "lat", "lon") if getattr(known, r) is None]
        report.notes.append(
            f"no column looks like the {' and the '.join(lacking)}; name it with --{lacking[0]} if there is one"
        )
        return report, concat([])
    started = time.process_time()
    points, broken = _some(files, known, rows, report)
    _look(points, broken, report, known, timezone)
    if known.time_origin == STAND_IN:
        known = _local_origin(known, points, report)
    tidy = points.take(Rules().depth(points) == 3)
    report.order = _order(tidy)
    tidy = in_order(tidy)
    if len(tidy):
        _look_at_tracks(tidy, report)
    spent = max(time.process_time() - started, 1e-3)
    report.seconds = round(4.0 + 2.0 * spent * report.rows / max(1, report.read), 1)
    report.memory = round(0.5 + min(report.rows, 12_000_000) * 90e-9 + 0.3, 1)
    report.command = _suggest(names, known, tidy, report)
    return report, tidy


def _local_origin(reading: Reading, points: Points, report: Report) -> Reading:
    """A first day that nobody knows begins at midnight where the people are; the points are moved there."""
    zone = report.timezone or "UTC"
    offset = int(local_seconds(np.array([0]) + origin_us(STAND_IN), zone)[0]) * 1_000_000 - origin_us(STAND_IN)
    if offset:
        points.time[points.time > UNREADABLE] -= offset
        _when(points, report, zone)
    sign, minutes = "-" if offset < 0 else "+", abs(offset) // 60_000_000
    return msgspec.structs.replace(reading, time_origin=f"{STAND_IN}T00:00{sign}{minutes // 60:02}:{minutes % 60:02}")


def _order(points: Points) -> str:
    """How rows are sorted; ``by user`` where each user's are together."""
    if not len(points):
        return "not"
    fresh = np.flatnonzero(np.diff(points.user, prepend=-1))
    together = len(np.unique(points.user[fresh])) == len(fresh)
    back = np.diff(points.time) < 0
    back[fresh[1:] - 1] = False
    if together:
        return "by user" if back.any() else "by user and time"
    return "not" if (np.diff(points.time) < 0).any() else "by time"


def _some(files: Sequence[Path], reading: Reading, rows: int, report: Report) -> tuple[Points, int]:
    """Points of the first pieces and of some spread over the rest."""
    if rows < 1:
        raise BadInput(f"--rows is at least 1, not {rows}")
    every = pieces(files, reading)
    if not every:
        raise BadInput(f"{files[0]} has a header but no rows")
    share = min(1.0, rows / report.rows)
    chosen = np.unique(np.linspace(0, len(every) - 1, max(1, math.ceil(share * len(every)))).astype(int))
    parts, broken = [], 0
    for i in chosen:
        points, lost = read_piece(every[i], reading)
        parts.append(points)
        broken += lost
        if sum(map(len, parts)) >= rows:
            break
    points = concat(parts)
    if len(points) > rows:
        points = points.take(np.arange(rows))
    report.read = len(points) + broken
    if report.read >= rows or len(parts) < len(every):
        report.notes.append(
            f"the figures are of {report.read:,} of about {max(report.rows, report.read):,} rows; --rows reads more"
        )
    else:
        report.rows = report.read
    return points, broken


def _look(points: Points, broken: int, report: Report, reading: Reading, timezone: str | None) -> None:
    """What can be told of rows by themselves."""
    n = max(1, report.read)
    depth = Rules().depth(points)
    lat, lon = points.lat, points.lon
    with np.errstate(invalid="ignore"):
        report.faults = {
            "have too few or many columns": broken / n,
            "have a time that cannot be read": float((depth == 0).sum()) / n,
            "lack a user, a time or a position": float((depth == 1).sum()) / n,
            "have a position that is no latitude and longitude": float((depth == 2).sum()) / n,
        }
        if reading.crs != "metres":
            nowhere = "are at latitude 0, longitude 0, which mostly means that nothing was measured"
            report.faults[nowhere] = float(((lat == 0) & (lon == 0)).sum()) / n
    good = depth == 3
    if not good.any():
        report.notes.append("no row makes a point as things are; the columns and units are to be told")
        return
    report.users = points.take(good).n_users() if len(points.names) else 0
    plane = reading.crs == "metres"
    south, north = np.quantile(lat[good], [0.001, 0.999])
    west, east = np.quantile(lon[good], [0.001, 0.999])
    report.area = [float(v) for v in (south, west, north, east)]
    if np.quantile(np.abs(lon[good]), 0.5) > 170 and np.ptp(lon[good]) > 350:
        report.notes.append("positions lie on both sides of the antimeridian: a grid would span the earth; try --mapper h3")
    wide = _km(report) > 2500
    middle = float(np.median(lat[good])), float(np.median(lon[good]))
    report.timezone = timezone or ("UTC" if plane or wide else zone_at(*middle))
    counts = _when(points, report, report.timezone)
    stand_in = reading.time_origin == STAND_IN
    uneven = counts.min() < 0.4 * counts.mean() and counts.sum() > 1000 and not (plane or wide or stand_in)
    if uneven and not (0 <= (report.quiet_hour or 0) <= 6) and _naive(reading):
        report.notes.append(
            f"in {report.timezone} fewest points are at {report.quiet_hour} h, which is odd for a night: if times without "
            f"an offset are local, give --naive {report.timezone}"
        )
    assert report.span is not None
    years = pd.DatetimeIndex(np.quantile(points.time[good], [0.001, 0.999]).astype("datetime64[us]")).year
    if not stand_in and (years[0] < 1970 or years[1] > pd.Timestamp.now().year + 1):
        report.notes.append(
            f"times reach from {report.span[0][:4]} to {report.span[1][:4]}: is the unit or the origin right?"
        )


def _when(points: Points, report: Report, zone: str) -> NDArray[np.int64]:
    """First and last moment, and points by hour of local time, ``(24,)``."""
    time = points.time[Rules().depth(points) == 3]
    report.span = [str(np.datetime64(int(t), "us"))[:19].replace("T", " ") for t in (time.min(), time.max())]
    counts = np.bincount(local_seconds(time, zone) % 86_400 // 3600, minlength=24)
    report.quiet_hour = int(np.argmin(sum(np.roll(counts, s) for s in (-1, 0, 1))))
    return counts


def _km(report: Report) -> float:
    """Length of the longer side of the area."""
    assert report.area is not None
    south, west, north, east = report.area
    return max((north - south) * 111.2, (east - west) * 111.2 * math.cos(math.radians((north + south) / 2)))


def _naive(reading: Reading) -> bool:
    return reading.time_unit is None and reading.naive == "UTC"


def _look_at_tracks(points: Points, report: Report) -> None:
    """What can be told of users' successive points."""
    n = max(1, report.read)
    user, time, lat, lon = points.user, points.time, points.lat, points.lon
    twice = kernels.repeats(user, time, lat, lon)
    report.faults["repeat another row of their user: the same moment and position"] = float((twice == 2).sum()) / n
    report.faults["repeat the moment of another row of their user, elsewhere"] = float((twice == 1).sum()) / n
    points = points.take(twice == 0)
    user, time, lat, lon = points.user, points.time, points.lat, points.lon
    counts = np.bincount(user)
    counts = counts[counts > 0]
    report.per_user = [float(q) for q in np.quantile(counts, [0.05, 0.5, 0.95])]
    same = user[1:] == user[:-1]
    if not same.any():
        report.notes.append("no user has two points: is the right column named with --user?")
        return
    step = np.diff(time)[same] / 1e6
    report.step = [float(q) for q in np.quantile(step, [0.05, 0.5, 0.95])]
    total = float(step.sum())
    report.gaps = float(step[step > 3600].sum() / total) if total else 0.0
    metres = kernels.distance(lat[:-1], lon[:-1], lat[1:], lon[1:])[same]
    fast = metres > FAST / 3.6 * np.maximum(step, 1e-6)
    report.faults[f"are reached at more than {FAST:g} km/h from the point before"] = float(fast.sum()) / n
    if (metres == 0).mean() > 0.98:
        report.notes.append("nearly no point differs from the one before: everybody stands still")
    report.coverage = list(_coverage(points, report))


def _coverage(points: Points, report: Report) -> Any:
    """How many users keep a sequence at half coverage."""
    seconds = local_seconds(points.time, report.timezone or "UTC") - 4 * 86_400
    users = len(np.unique(points.user))
    for period, length, step in (("week", 168, 3600), ("day", 24, 3600), ("day", 48, 1800)):
        slot = np.unique(np.stack([points.user, seconds // step]), axis=1) if len(points) < 200_000 else None
        if slot is None:
            fresh = np.ones(len(points), bool)
            fresh[1:] = (np.diff(points.user) != 0) | (np.diff(seconds // step) != 0)
            slot = np.stack([points.user[fresh], seconds[fresh] // step])
        table = pd.DataFrame({"user": slot[0], "sequence": slot[1] // length})
        observed = table.groupby(["user", "sequence"]).size()
        enough = observed[observed >= length / 2]
        yield {
            "period": period,
            "step": "1h" if step == 3600 else "30min",
            "users": len(enough.index.get_level_values("user").unique()) / max(1, users),
            "sequences": len(enough),
            "best": float(observed.max() / length),
        }


def _suggest(names: Sequence[str], reading: Reading, points: Points, report: Report) -> str | None:
    """The command that prepares it."""
    if not len(points) or report.step is None:
        return None
    words = ["mobtk", "data", "prepare", *names, "-o", _stem(names[0])]
    base = Reading(format=reading.format, **FORMATS[reading.format].preset)
    for name in Reading.__struct_fields__:
        value = getattr(reading, name)
        if value != getattr(base, name) and value is not None and value != "geometry":
            words += [
                f"--{name.replace('_', '-')}",
                ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value),
            ]
    if report.timezone != "UTC":
        words += ["--timezone", str(report.timezone)]
    words += [] if reading.time == "step" else _filters(points, report)
    layout = _layout(points, report)
    words += layout
    regular = "--step" not in layout  # whole weeks or days of few people: the last ones are for the test
    assert report.span is not None
    days = (np.datetime64(report.span[1]) - np.datetime64(report.span[0])) / np.timedelta64(1, "D")
    periods = days if "day" in layout else days / 7
    if (report.users or 0) < (10 if regular and periods > 20 else 3):
        words += ["--split", "time"]
    return " ".join(w if w.startswith("--") else shlex.quote(w) for w in words)


def _filters(points: Points, report: Report) -> list[str]:
    words = []
    jumps = report.faults.get(f"are reached at more than {FAST:g} km/h from the point before", 0.0)
    events = report.step is not None and report.step[1] > 2 * 3600
    if jumps > 1e-4 and not events:
        words += ["--max-speed", "200"]
    assert report.area is not None
    south, west, north, east = report.area
    tall, wide = max(north - south, 0.01), max(east - west, 0.01)
    outside = [points.lat.min() < south - tall, points.lon.min() < west - wide, points.lat.max() > north + tall,
               points.lon.max() > east + wide]  # fmt: skip
    if any(outside):
        box = (south - 0.1 * tall, west - 0.1 * wide, north + 0.1 * tall, east + 0.1 * wide)
        inside = ",".join(f"{b:.3f}" for b in (max(-90, box[0]), max(-180, box[1]), min(90, box[2]), min(180, box[3])))
        words.append(f"--bounds={inside}")
        report.notes.append("some points lie far from all others; --bounds leaves them out")
    return words


def _layout(points: Points, report: Report) -> list[str]:
    """Step, period and mapper that keep most of it."""
    assert report.step is not None and report.per_user is not None and report.area is not None
    km = _km(report)
    places = len(np.unique(np.round(np.column_stack([points.lat, points.lon]), 7), axis=0))
    week, day, _ = report.coverage
    for c in (week, day):
        if c["users"] >= 0.25:
            return [*(["--period", "day"] if c is day else []), *_mapper(km)]
    seconds = np.diff(points.time)[points.user[1:] == points.user[:-1]] / 1e6
    if report.step[1] > 2 * 3600 or places < len(points) / 4:  # check-ins
        length = int(min(16, max(2, report.per_user[1] // 2)))
        mapper = ["--mapper", "places"] if places <= 50_000 and places < len(points) / 2 else _mapper(km)
        return ["--step", "event", "--period", str(length), *mapper]
    nice = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 86_400]
    step = next((s for s in nice if s >= np.quantile(seconds, 0.6)), 86_400)
    breaks = np.flatnonzero((points.user[1:] != points.user[:-1]) | (np.diff(points.time) > 10e6 * step))
    ends = np.append(breaks, len(points) - 1)
    begins = np.append(0, breaks + 1)
    lasting = float(np.median((points.time[ends] - points.time[begins]) / 1e6))
    length = int(np.clip(lasting // step, 2, 168))
    word = f"{step // 3600}h" if step % 3600 == 0 else f"{step // 60}min" if step % 60 == 0 else f"{step}s"
    return ["--step", word, "--period", str(length), *_mapper(km)]


def _mapper(km: float) -> list[str]:
    """A mapper with a number of cells that can be learned."""
    if km > 2500:
        return ["--mapper", "h3", "--set", f"resolution={3 if km > 6000 else 4}", "--set", "levels=3"]
    size = next((s for s in (50, 100, 250, 500, 1000, 2000, 5000, 10_000, 25_000) if km * 1000 / s <= 60), 50_000)
    return [] if size == 1000 else ["--set", f"size={size}"]


def _stem(name: str) -> str:
    stem = Path(name).name.split(".")[0].replace("*", "").strip("-_ ") or "dataset"
    return f"{stem}-dataset"


def _share(value: float) -> str:
    return "less than 1%" if 0 < value < 0.005 else f"{value:.0%}"


def _three(values: list[float] | None) -> str:
    return "-" if values is None else ", ".join(f"{v:,.0f}" if v >= 10 else f"{v:.3g}" for v in values)


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1000
    return ""


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    )
