"""From points in a file to a dataset: resampled, mapped to cells, cut into sequences, split; with its funnel.

Input is CSV, Parquet or GeoParquet with one row a point. Times are read in UTC and laid out in local time, so that
weeks begin on Monday 00:00 and days at 00:00 where the people are.
"""

import gzip
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mobtk.contracts import SpatialMapper
from mobtk.data.dataset import SPLITS, Dataset, Info
from mobtk.data.funnel import Loss
from mobtk.data.traits import home_and_work, movement_clusters
from mobtk.errors import BadInput
from mobtk.options import call
from mobtk.plugins import registry
from mobtk.storage import PathLike, check_replaceable

GAPS = ("hold", "nearest", "drop")
MONDAY = 4 * 86_400
"""Seconds from the epoch, a Thursday, to the first Monday."""


def prepare(
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    user: str = "user",
    time: str = "time",
    lat: str = "lat",
    lon: str = "lon",
    places: PathLike | None = None,
    place: str | None = None,
    time_unit: str | None = None,
    time_format: str | None = None,
    time_origin: str | None = None,
    timezone: str = "UTC",
    scale: float = 1.0,
    bounds: tuple[float, float, float, float] | None = None,
    mapper: str = "grid",
    mapper_options: Mapping[str, Any] | None = None,
    step: str = "1h",
    period: str = "week",
    coverage: float = 0.5,
    gaps: str = "hold",
    max_gap: int | None = None,
    split: str = "user",
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    clusters: int = 8,
    seed: int = 0,
    name: str | None = None,
    licence: str = "not stated",
    replace: bool = False,
) -> Dataset:
    """Make a dataset of points. ``mobtk data prepare`` does the same.

    Args:
        files: one file or several, CSV, Parquet or GeoParquet.
        out: folder of the dataset.
        user, time, lat, lon: names of the columns. A GeoParquet file gives its positions by its geometry.
        places: a table that gives positions to ids, for check-ins; ``place`` names the id column in both.
        place: see ``places``.
        time_unit: of numeric times: ``s``, ``ms``, ``min``, ``h`` or ``D``; guessed for seconds and milliseconds
            since 1970.
        time_format: how times in words are written, as for ``strptime``, such as ``%d/%m/%Y %H:%M``; ISO 8601 by
            default. Times without an offset are in UTC.
        time_origin: the moment from which numeric times count, in UTC if it has no offset; 1970 by default.
        timezone: where the people are, as an IANA name.
        scale: factor that makes degrees of the coordinates, such as 1e-6.
        bounds: south, west, north and east of the area; all points by default.
        mapper: name of the spatial mapper.
        mapper_options: its options.
        step: duration of a step, such as ``1h`` or ``30min``; or ``event``: every point is a step.
        period: length of a sequence: ``week``, ``day``, or a number of steps.
        coverage: least share of a sequence's steps with a point.
        gaps: what stands in steps without a point: the last place known (``hold``), the ``nearest`` in time, or
            nothing (``drop``: the sequence is dropped).
        max_gap: steps a place is held or reached for at most.
        split: by ``user``, or by ``time``.
        shares: of users, or of time, for training, validation and test.
        clusters: number of movement clusters.
        seed: of the split and the clusters.
        name: of the dataset; the folder's by default.
        licence: of the data, for the record.
        replace: replace an existing folder.

    Raises:
        BadInput: with one sentence that says what would have worked. Nothing is written then.
    """
    settings = {k: v for k, v in locals().items() if k not in ("files", "out", "replace") and v is not None}
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    if places is not None:
        settings["places"] = str(places)
    sources = [Path(f) for f in ([files] if isinstance(files, (str, os.PathLike)) else files)]
    step_seconds, length = _layout(step, period)
    _check_options(gaps, coverage, split, shares, clusters, seed)
    inputs = [*sources, *([places] if places is not None else [])]
    check_replaceable(out, replace, inputs)
    entry = registry().find("mapper", mapper)

    points = read_points(sources, {"user": user, "time": time, "lat": lat, "lon": lon}, places=places, place=place)
    funnel = [Loss("read", _users(points), len(points))]

    def keep(mask: NDArray[np.bool_], what: str, why: str) -> None:
        nonlocal points
        if not mask.all():
            points = points[mask]
        funnel.append(Loss(what, _users(points), len(points), why=f"{int((~mask).sum()):,} {why}"))
        if not len(points):
            raise BadInput(f"no point of {', '.join(map(str, sources))} is left after the step {what!r}: all {why}")

    given = points["time"].notna()
    points["time"] = _moments(points["time"], time, time_unit, time_origin, time_format)
    points[["lat", "lon"]] *= scale
    keep(
        (points["time"].notna() | ~given).to_numpy(),
        "times read",
        "times cannot be read",
    )
    keep(
        points.notna().all(axis=1).to_numpy() & np.isfinite(points[["lat", "lon"]].to_numpy(float)).all(axis=1),
        "complete",
        "rows lack a user, a time or a position",
    )
    _check_degrees(points, scale)
    same = ["user", "time"] if step_seconds is not None else ["user", "time", "lat", "lon"]  # two visits in a minute are two
    keep(~points.duplicated(same).to_numpy(), "no row twice", f"have the {', '.join(same)} of another row")
    points["time"] = _local_seconds(points["time"], timezone)
    if bounds is not None:
        south, west, north, east = bounds
        inside = points["lat"].between(south, north) & points["lon"].between(west, east)
        keep(inside.to_numpy(), "in bounds", "lie outside the bounds")

    position = points["lat"].to_numpy(), points["lon"].to_numpy()
    cell_mapper: SpatialMapper = call(f"mapper {mapper!r}", entry.load().fit, position, mapper_options or {})
    points["cell"] = cell_mapper.encode(points["lat"].to_numpy(), points["lon"].to_numpy())
    keep((points["cell"] >= 0).to_numpy(), "on the map", f"are in no cell of mapper {mapper!r}")
    points = points.sort_values(["user", "time"], kind="stable")

    if step_seconds is None:
        cells, users, moments, lost = _cut_events(points, length)
        starts, ends = moments[:, 0], moments[:, -1]
        funnel.append(lost)
    else:
        cells, users, starts, losses = _cut_steps(points, step_seconds, length, period, coverage, gaps, max_gap)
        funnel += losses
        ends = starts
        moments = starts[:, None] + np.arange(length) * step_seconds

    part, cuts = split_rows(users, ends, split, shares, seed)
    home, work = home_and_work(cells, moments % 86_400 / 3600, (moments - MONDAY) // 86_400 % 7 >= 5)
    cluster = movement_clusters(cells, home, work, cell_mapper, part == "train", clusters, seed)
    names, number = np.unique(users.astype(str), return_inverse=True)
    n = cell_mapper.n_cells[0]
    per_day = 86_400 // step_seconds if step_seconds and 86_400 % step_seconds == 0 else 0
    info = Info(
        name=name or Path(out).name,
        step=step,
        steps=length,
        steps_per_day=per_day if per_day and length % per_day == 0 else length,  # no clock where days are cut
        trait_sizes={"home": n, "work": n, "cluster": clusters, "person": len(names)},
        sources=[str(f) for f in sources],
        licence=licence,
        settings=settings,
        funnel=funnel,
        cuts=cuts,
    )
    columns = {
        "user": pa.array(users.astype(str)),
        "start": pa.array(starts.astype("datetime64[s]")),
        "split": pa.array(part),
        "home": pa.array(home.astype(np.int32)),
        "work": pa.array(work.astype(np.int32)),
        "cluster": pa.array(cluster.astype(np.int32)),
        "person": pa.array(number.astype(np.int32)),
    }
    if step_seconds is None:
        columns["moments"] = pa.FixedSizeListArray.from_arrays(pa.array(moments.ravel()), length)
    return Dataset.write(out, info, (entry.full_name, cell_mapper), cells, columns, replace=replace, inputs=inputs)


def read_points(
    files: Iterable[Path], columns: Mapping[str, str], *, places: PathLike | None = None, place: str | None = None
) -> pd.DataFrame:
    """Rows of ``user, time, lat, lon`` from tables whose columns have other names.

    Raises:
        BadInput: a file is missing, empty, damaged or of an unknown kind, or lacks a column.
    """
    tables = []
    wanted = dict(columns)
    if places is not None:
        if place is None:
            raise BadInput("--places wants --place too: the column that holds the id of a place in both tables")
        del wanted["lat"], wanted["lon"]
        wanted["place"] = place
        spots = _read(Path(places), {"place": place, "lat": columns["lat"], "lon": columns["lon"]})
        spots["place"] = spots["place"].astype(str)
        if spots["place"].duplicated().any():
            raise BadInput(f"{places}: column {place!r} has an id twice; each place wants one position")
    for file in files:
        table = _read(file, wanted)
        if places is not None:
            table = table.assign(place=table["place"].astype(str)).merge(spots, on="place", how="left").drop(columns="place")
        tables.append(table[["user", "time", "lat", "lon"]])
    return pd.concat(tables, ignore_index=True)


def _read(file: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The wanted columns of one file, under our names."""
    if not file.is_file():
        raise BadInput(f"{file} is not a file")
    if not file.stat().st_size:
        raise BadInput(f"{file} is empty")
    kind = file.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        if kind in ("parquet", "geoparquet", "pq"):
            present = pq.read_schema(file).names
            geo = b"geo" in (pq.read_schema(file).metadata or {})
        elif kind in ("csv", "tsv", "txt"):
            separator = _separator(file)
            present, geo = list(pd.read_csv(file, nrows=0, sep=separator, encoding="utf-8-sig").columns), False
        else:
            raise BadInput(f"{file} is of no kind that mobtk reads; give .csv, .parquet or GeoParquet")
        by_geometry = geo and "lat" in columns and columns["lat"] not in present
        wanted = {k: v for k, v in columns.items() if not (by_geometry and k in ("lat", "lon"))}
        for ours, theirs in wanted.items():
            if theirs not in present:
                raise BadInput(
                    f"{file} has no column {theirs!r} for the {ours}; it has {', '.join(map(str, present))}: "
                    f"name the right one with --{ours}"
                )
        if by_geometry:
            import geopandas

            frame = geopandas.read_parquet(file)
            degrees = frame.geometry.to_crs(4326) if frame.crs else frame.geometry
            table = pd.DataFrame(frame[list(wanted.values())]).assign(lat=degrees.y, lon=degrees.x)
            table = table.rename(columns={v: k for k, v in wanted.items()})
        elif kind in ("parquet", "geoparquet", "pq"):
            table = pq.read_table(file, columns=list(dict.fromkeys(wanted.values()))).to_pandas()
            table = pd.DataFrame({ours: table[theirs] for ours, theirs in wanted.items()})
        else:
            use, as_text = list(dict.fromkeys(wanted.values())), {wanted[k]: str for k in ("user", "place") if k in wanted}
            table = pd.read_csv(file, sep=separator, usecols=use, dtype=as_text, encoding="utf-8-sig")
            table = pd.DataFrame({ours: table[theirs] for ours, theirs in wanted.items()})
    except (OSError, ValueError, pa.ArrowException, pd.errors.ParserError) as error:
        raise BadInput(f"{file} cannot be read: {str(error).strip().splitlines()[0]}; is it complete?") from None
    if not len(table):
        raise BadInput(f"{file} has a header but no rows")
    for column in ("lat", "lon"):
        if column in table:
            table[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
    return table


def _separator(file: Path) -> str:
    """What parts the columns of a text file, by its header."""
    read = gzip.open if file.suffix == ".gz" else open
    with read(file, "rt", errors="replace") as lines:
        header = next((line for line in lines if line.strip()), "")
    return max(",;\t|", key=header.count)


def _users(points: pd.DataFrame) -> int:
    return int(points["user"].nunique())


def _layout(step: str, period: str) -> tuple[int | None, int]:
    """Seconds of a step (``None``: a step is an event) and steps of a sequence."""
    if step == "event":
        if not period.isdigit() or int(period) < 2:
            raise BadInput(f"with --step event the period is a number of events, such as --period 16, not {period!r}")
        return None, int(period)
    try:
        seconds = int(pd.Timedelta(step).total_seconds())
    except ValueError:
        seconds = 0
    if seconds < 1:
        raise BadInput(f"step {step!r} is no duration; try 1h, 30min or event")
    if period.isdigit():
        length = int(period)
    elif period in ("week", "day"):
        whole = {"week": 7 * 86_400, "day": 86_400}[period]
        if whole % seconds:
            raise BadInput(f"a {period} is not a whole number of steps of {step}; try 1h or 30min")
        length = whole // seconds
    else:
        raise BadInput(f"period {period!r} is not one of week, day, or a number of steps")
    if length < 2:
        raise BadInput(f"a sequence needs two steps at least; a period of {period} with steps of {step} has {length}")
    return seconds, length


def _check_options(gaps: str, coverage: float, split: str, shares: Sequence[float], clusters: int, seed: int) -> None:
    if gaps not in GAPS:
        raise BadInput(f"gap rule {gaps!r} is not one of {', '.join(GAPS)}")
    if not 0 <= coverage <= 1:
        raise BadInput(f"coverage is a share between 0 and 1, not {coverage}")
    if split not in ("user", "time"):
        raise BadInput(f"split {split!r} is not one of user, time")
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        raise BadInput(f"shares are three numbers that sum to 1, training first, not {list(shares)}")
    if clusters < 1 or seed < 0:
        raise BadInput(f"clusters are at least 1 and a seed at least 0, not clusters={clusters}, seed={seed}")


def _moments(times: pd.Series, column: str, unit: str | None, origin: str | None, written: str | None) -> pd.Series:
    """The moments, in UTC (missing and unreadable ones NaT)."""
    if times.isna().all():
        raise BadInput(f"column {column!r} holds no times: it is empty; name another --time")
    if pd.api.types.is_numeric_dtype(times):
        if unit is None:
            largest = times.abs().max()
            unit = "s" if 1e8 <= largest < 1e10 else "ms" if 1e11 <= largest < 1e13 else None
            if unit is None or origin is not None:
                raise BadInput(
                    f"column {column!r} holds numbers up to {largest:g}: say what they count with --time-unit "
                    "(ns, us, ms, s, min, h, D), and from when with --time-origin if not from 1970"
                )
        try:
            start = pd.Timestamp(origin or "1970-01-01")
            start = start.tz_convert("UTC").tz_localize(None) if start.tzinfo else start
            return pd.to_datetime(times, unit=unit, origin=start, errors="coerce", utc=True)
        except (ValueError, OverflowError) as error:
            raise BadInput(f"--time-unit {unit!r} and --time-origin {origin!r} make no times: {error}") from None
    try:
        moments = pd.to_datetime(times, utc=True, errors="coerce", format=written or "ISO8601")
    except ValueError as error:
        raise BadInput(f"--time-format {written!r} is no format of strptime: {error}") from None
    if moments.isna().all():
        first = times.dropna().iloc[0]
        wrong = "is not ISO 8601: say how it is written with --time-format, such as '%d/%m/%Y %H:%M'"
        raise BadInput(f"column {column!r} begins with {first!r}, which {f'is not {written!r}' if written else wrong}")
    return moments


def _local_seconds(moments: pd.Series, timezone: str) -> pd.Series:
    """Local wall-clock seconds since 1970."""
    try:
        local = moments.dt.tz_convert(timezone).dt.tz_localize(None)
    except Exception:
        raise BadInput(f"timezone {timezone!r} is unknown; give an IANA name such as Asia/Shanghai") from None
    return local.astype("datetime64[s]").astype(np.int64)


def _check_degrees(points: pd.DataFrame, scale: float) -> None:
    for column, limit in (("lat", 90), ("lon", 180)):
        bad = points[column].abs() > limit
        if bad.any():
            value = points[column][bad].iloc[0]
            hint = (
                "swap --lat and --lon"
                if column == "lat" and points["lon"].abs().max() <= 90 and points["lat"].abs().max() <= 180
                else "give --scale, such as 1e-6 for millionths of a degree"
            )
            raise BadInput(
                f"{column} {value:g} is outside -{limit}..{limit} degrees (as {int(bad.sum()):,} of {len(points):,} "
                f"points); {hint}, or remove those rows"
            )


def _cut_steps(
    points: pd.DataFrame,
    seconds: int,
    length: int,
    period: str,
    coverage: float,
    gaps: str,
    max_gap: int | None,
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64], list[Loss]]:
    """Sequences of regular steps: the cell with most points in each, then gaps by their rule."""
    user, names = pd.factorize(points["user"])
    step = (points["time"].to_numpy() - MONDAY) // seconds  # so that a week, a day and any number of steps begin on one
    cell = points["cell"].to_numpy()
    order = np.lexsort((cell, step, user))
    u, s, c = user[order], step[order], cell[order]
    fresh = np.flatnonzero(np.diff(u, prepend=-1) | np.diff(s, prepend=s[0] - 1) | np.diff(c, prepend=-1))
    count = np.diff(fresh, append=len(u))
    u, s, c = u[fresh], s[fresh], c[fresh]
    order = np.lexsort((c, -count, s, u))  # of each user's step, the cell with most points comes first
    u, s, c = u[order], s[order], c[order]
    first = np.flatnonzero(np.diff(u, prepend=-1) | np.diff(s, prepend=s[0] - 1))
    u, s, c = u[first], s[first], c[first]

    sequence = s // length
    begins = np.diff(u, prepend=-1).astype(bool) | np.diff(sequence, prepend=sequence[0] - 1).astype(bool)
    row = np.cumsum(begins) - 1
    cells = np.full((row[-1] + 1, length), -1, np.int64)
    cells[row, s % length] = c
    owner, start = u[begins], sequence[begins] * length * seconds + MONDAY
    observed = (cells >= 0).sum(1)
    what = f"cut into {'sequences' if period.isdigit() else period + 's'}"
    losses = [Loss(what, len(np.unique(owner)), int(observed.sum()), len(cells), "a step keeps its most visited cell")]

    covered = observed >= max(1, coverage * length)
    if not covered.any():
        best = observed.max() / length
        raise BadInput(
            f"no {period if not period.isdigit() else 'sequence'} of any user is covered to {coverage:.0%}; the best "
            f"reaches {best:.0%}: try --coverage {max(0.01, np.floor(best * 100) / 100):g}, a longer --step or a shorter "
            "--period"
        )
    cells, owner, start, observed = cells[covered], owner[covered], start[covered], observed[covered]
    losses.append(
        Loss(
            f"coverage {coverage:.0%}",
            len(np.unique(owner)),
            int(observed.sum()),
            len(cells),
            f"{int((~covered).sum()):,} have points in fewer of their steps",
        )
    )
    filled = _fill(cells, gaps, max_gap)
    whole = (filled >= 0).all(1)
    if not whole.any():
        raise BadInput(
            f"every sequence has a gap that the rule --gaps {gaps} leaves open; allow --gaps hold"
            + ("" if max_gap is None else f" and a --max-gap above {max_gap}")
        )
    held = int((cells[whole] < 0).sum())
    losses.append(
        Loss(
            f"gaps: {gaps}",
            len(np.unique(owner[whole])),
            int(observed[whole].sum()),
            int(whole.sum()),
            f"{int((~whole).sum()):,} have gaps left open; {held:,} steps were filled in the others",
        )
    )
    return filled[whole], names.to_numpy()[owner[whole]], start[whole], losses


def _fill(cells: NDArray[np.int64], gaps: str, max_gap: int | None) -> NDArray[np.int64]:
    """Steps without a point (-1) by the gap rule; what stays open stays -1."""
    if gaps == "drop":
        return cells
    steps = np.arange(cells.shape[1])
    known = cells >= 0
    never = 10**9
    before = np.maximum.accumulate(np.where(known, steps, -never), axis=1)
    after = np.minimum.accumulate(np.where(known, steps, never)[:, ::-1], axis=1)[:, ::-1]
    # nothing is known before the first point of a sequence: either rule looks ahead there
    back, ahead = steps - before, after - steps
    use = np.where((before >= 0) if gaps == "hold" else (before >= 0) & (back <= ahead), before, after)
    reach = np.abs(steps - use)
    value = np.take_along_axis(cells, np.clip(use, 0, cells.shape[1] - 1), axis=1)
    return np.where(reach <= (never - 1 if max_gap is None else max_gap), value, -1)


def _cut_events(points: pd.DataFrame, length: int) -> tuple[Any, ...]:
    """Sequences of ``length`` successive points of a user, without overlap, the last one ending with the last point."""
    user, names = pd.factorize(points["user"])
    time, cell = points["time"].to_numpy(), points["cell"].to_numpy()
    count = np.bincount(user)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    spare = count % length
    begin = np.concatenate(
        [np.arange(f + r, f + n, length) for f, r, n in zip(first, spare, count, strict=True)] or [np.empty(0, int)]
    ).astype(int)
    if not len(begin):
        raise BadInput(f"no user has {length} points; the busiest has {count.max()}: try --period {max(2, count.max())}")
    index = begin[:, None] + np.arange(length)
    users = names.to_numpy()[user[begin]]
    lost = Loss(
        f"cut into {length} events",
        len(np.unique(users)),
        index.size,
        len(begin),
        f"{int(spare.sum()):,} points come before the first whole sequence of their user",
    )
    return cell[index], users, time[index], lost


def split_rows(
    users: NDArray[Any], ends: NDArray[np.int64], how: str, shares: Sequence[float], seed: int
) -> tuple[NDArray[np.str_], list[float]]:
    """The split of each row, by user or by the time of its end; and the two moments that part it, if by time."""
    if how == "user":
        names, number = np.unique(users.astype(str), return_inverse=True)
        if len(names) < 3:
            raise BadInput(
                f"a split by user needs three users and there {'is' if len(names) == 1 else 'are'} {len(names)} left; "
                "use --split time"
            )
        order = np.random.default_rng(seed).permutation(len(names))
        rank = np.empty(len(names), int)
        rank[order] = np.arange(len(names))
        last = np.round(np.cumsum(shares[:2]) * len(names)).astype(int)
        last[0] = np.clip(last[0], 1, len(names) - 2)  # at least one user each
        last[1] = np.clip(last[1], last[0] + 1, len(names) - 1)
        return np.array(SPLITS)[np.searchsorted(last, rank, side="right")][number], []
    cuts = np.quantile(ends, np.cumsum(shares[:2]))
    part = np.array(SPLITS)[np.searchsorted(cuts, ends, side="left")]
    missing = [s for s in SPLITS if not (part == s).any()]
    if missing:
        raise BadInput(
            f"a split by time leaves nothing for {' and '.join(missing)}: {len(ends)} sequences end at "
            f"{len(np.unique(ends))} different times; use a shorter --period"
        )
    return part, cuts.tolist()
