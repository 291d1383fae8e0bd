"""From points in files to a dataset: cleaned, mapped to cells, cut into sequences, split; with its funnel.

Times are read in UTC and laid out in local time, so that weeks begin on Monday 00:00 and days at 00:00 where the people are,
daylight saving included.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.contracts import SpatialMapper
from mobtk.data.clean import Rules
from mobtk.data.cut import MONDAY, Cut, Layout, check_split, cut, divide
from mobtk.data.dataset import Dataset, Info, fixed_list, list_column
from mobtk.data.formats import Reading
from mobtk.data.funnel import Loss
from mobtk.data.moments import check_zone, local_seconds
from mobtk.data.points import user_rank
from mobtk.data.shards import Workers, work_folder
from mobtk.data.tracks import Source, Tracks, collect, plan
from mobtk.data.traits import home_and_work, movement
from mobtk.errors import BadInput
from mobtk.options import call
from mobtk.plugins import registry
from mobtk.storage import PathLike, check_replaceable


def prepare(
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    format: str = "auto",
    user: str | None = None,
    time: str | None = None,
    lat: str | None = None,
    lon: str | None = None,
    accuracy: str | None = None,
    columns: Sequence[str] | None = None,
    separator: str | None = None,
    decimal: str = ".",
    encoding: str | None = None,
    time_unit: str | None = None,
    time_origin: str | None = None,
    time_format: str | None = None,
    naive: str = "UTC",
    scale: float = 1.0,
    crs: str | None = None,
    places: PathLike | None = None,
    place: str | None = None,
    timezone: str = "UTC",
    bounds: tuple[float, float, float, float] | None = None,
    since: str | None = None,
    until: str | None = None,
    max_accuracy: float | None = None,
    max_speed: float | None = None,
    trim: float = 0.0,
    track_gap: float = 3600.0,
    min_users: int = 1,
    mapper: str = "grid",
    mapper_options: Mapping[str, Any] | None = None,
    step: str = "1h",
    period: str = "week",
    coverage: float = 0.5,
    day_coverage: float = 0.0,
    gaps: str = "hold",
    max_gap: int | None = None,
    min_sequences: int = 1,
    split: str = "user",
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    clusters: int = 8,
    seed: int = 0,
    name: str | None = None,
    licence: str = "not stated",
    replace: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
) -> Dataset:
    """Make a dataset of points. ``mobtk data prepare`` does the same.

    Up to twelve million points are held in memory; more go through a hidden folder beside ``out``, in shards by user. A job
    that was killed goes on where it was when it is started again.

    Args:
        files: a file, a folder, a glob, or several.
        out: folder of the dataset.
        format, user, time, lat, lon, accuracy, columns, separator, decimal, encoding, time_unit, time_origin, time_format,
            naive, scale, crs, places, place: see :class:`~mobtk.data.sources.Reading`; ``auto`` looks at the files.
        timezone: where the people are, as an IANA name.
        bounds, since, until, max_accuracy, max_speed, trim, track_gap: see :class:`~mobtk.data.clean.Rules`.
        min_users: points in cells that fewer different people visit go.
        mapper: name of the spatial mapper.
        mapper_options: its options.
        step, period, coverage, day_coverage, gaps, max_gap, min_sequences: see :class:`~mobtk.data.cut.Layout`.
        split: by ``user``, or by ``time``.
        shares: of users, or of time, for training, validation and test.
        clusters: number of movement clusters.
        seed: of the split and the clusters.
        name: of the dataset; the folder's by default.
        licence: of the data, for the record.
        replace: replace an existing folder.
        workers: processes that share the work, by Dask.
        scheduler: address of a Dask scheduler instead; its workers must see the same files.

    Raises:
        BadInput: with one sentence that says what would have worked. Nothing is written then.
    """
    given = locals()
    settings = {
        k: v for k, v in given.items() if k not in ("files", "out", "replace", "workers", "scheduler") and v is not None
    }
    settings |= {k: list(v) for k, v in settings.items() if isinstance(v, tuple)}
    if places is not None:
        settings["places"] = str(places)
    wish = Reading(**{f: given[f] for f in Reading.__struct_fields__ if f not in ("columns", "places")})
    wish = _with(wish, columns=None if columns is None else tuple(columns), places=None if places is None else str(places))
    layout = Layout(step, period, coverage, day_coverage, gaps, max_gap, min_sequences)
    layout.check()
    check_split(split, shares, seed)
    if clusters < 1 or min_users < 1:
        raise BadInput(f"clusters and min_users are at least 1, not clusters={clusters}, min_users={min_users}")
    check_zone(timezone)
    check_zone(naive, "--naive")
    rules = Rules(bounds, since, until, max_accuracy, max_speed, trim, track_gap, layout.seconds is None)
    entry = registry().find("mapper", mapper)
    crew = Workers(workers, scheduler)
    source = plan(files, wish, rules, many=crew.many)
    settings["format"] = source.reading.format
    inputs = [f for f, _, _ in source.files]
    check_replaceable(out, replace, inputs)

    task = Task(source, layout, timezone, min_users, mapper, dict(mapper_options or {}))
    folder = work_folder(Path(out), task) if source.bits or crew.many else contextlib.nullcontext()
    with crew, folder as work:
        job = Job(task, Tracks(source, work))
        collect(job.tracks, crew)
        funnel = job.tracks.funnel()
        job.mapper_config = job.fit(entry)
        cell_mapper = job.mapper()
        if min_users > 1:
            crew.run(_census, job, job.tracks.todo("census"), "counting users")
            job.closed = job.crowded()
        crew.run(_cut, job, job.tracks.todo("cut"), "cutting")
        funnel += job.funnel()
        if min_users > 1:
            funnel.append(job.thin())
        users, ends, features = job.rows()
        own, cuts, people = divide(users, ends, features, split, shares, clusters, seed)
        n = cell_mapper.n_cells[0]
        info = Info(
            name=name or Path(out).name,
            step=step,
            steps=layout.length,
            steps_per_day=layout.per_day,
            trait_sizes={"home": n, "work": n, "cluster": clusters, "person": people},
            sources=[f for f, _, _ in source.files][:100],
            licence=licence,
            settings=settings,
            funnel=funnel,
            cuts=cuts,
        )
        return Dataset.write(out, info, (entry.full_name, cell_mapper), job.tables(own), replace=replace, inputs=inputs)


def _with(reading: Reading, **changes: Any) -> Reading:
    import msgspec

    return msgspec.structs.replace(reading, **changes)


class Task(Struct, frozen=True):
    """All that decides what a preparation makes of its points."""

    source: Source
    layout: Layout
    timezone: str
    min_users: int
    mapper: str
    mapper_options: dict[str, Any]


@dataclass
class Job:
    """A preparation on its way.

    Args:
        task: what is to be made.
        tracks: the points.
        mapper_config: of the mapper that was fitted.
        closed: cells whose points go, because few people visit them.
        kept: which sequences stay where cells of a few people came about in the cutting.
    """

    task: Task
    tracks: Tracks
    mapper_config: dict[str, Any] | None = None
    closed: NDArray[np.int64] | None = None
    kept: NDArray[np.bool_] | None = None

    def fit(self, entry: Any) -> dict[str, Any]:
        """The mapper over all points, as its plain configuration."""
        kind = entry.load()
        box = self.tracks.box()
        assert box is not None
        if getattr(kind, "fits_box", False):
            lat, lon = _outline(box)
        else:
            lat, lon = self._positions()
        fitted: SpatialMapper = call(f"mapper {self.task.mapper!r}", kind.fit, (lat, lon), self.task.mapper_options)
        return fitted.config()

    def mapper(self) -> SpatialMapper:
        """The mapper that was fitted."""
        mapper: SpatialMapper = registry().find("mapper", self.task.mapper).load()(**self.mapper_config or {})
        return mapper

    def _positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every different position, for mappers that want all."""
        found = np.empty((0, 2))
        for s in range(self.tracks.shards):
            points = self.tracks.points(s)
            found = np.concatenate([found, pd.DataFrame({"a": points.lat, "b": points.lon}).drop_duplicates().to_numpy()])
            found = np.unique(found, axis=0)
        return found[:, 0], found[:, 1]

    def crowded(self) -> NDArray[np.int64]:
        """The cells that too few people visit."""
        users = np.zeros(self.mapper().n_cells[0], np.int64)
        for s in range(self.tracks.shards):
            census = self.tracks.store.get(f"census-{s:05d}", ["cell", "users"])
            np.add.at(users, census["cell"].to_numpy(), census["users"].to_numpy())
        return np.flatnonzero(users < self.task.min_users)

    def funnel(self) -> list[Loss]:
        """What the mapping and the cutting lost.

        Raises:
            BadInput: nothing is left.
        """
        task, layout = self.task, self.task.layout
        notes = [self.tracks.store.note(f"cut-{s:05d}") for s in range(self.tracks.shards)]
        sums = [{k: sum(n["counts"][i][k] for n in notes) for k in c} for i, c in enumerate(notes[0]["counts"])]
        best = max(n["best"] for n in notes)
        steps = [("on the map", f"are in no cell of mapper {task.mapper!r}")]
        if task.min_users > 1:
            steps.append((f"{task.min_users} users a cell", f"are in cells that fewer than {task.min_users} users visit"))
        if layout.seconds is None:
            steps.append((f"cut into {layout.length} events", "points come before the first whole sequence of their user"))
        else:
            what = "sequences" if layout.period.isdigit() else f"{layout.period}s"
            by_day = f", {layout.day_coverage:.0%} a day" if layout.day_coverage else ""
            steps += [
                (f"cut into {what}", "; a step keeps its most visited cell"),
                (f"coverage {layout.coverage:.0%}{by_day}", "sequences have points in fewer of their steps"),
                (f"gaps: {layout.gaps}", "sequences have gaps left open"),
            ]
            if layout.min_sequences > 1:
                steps.append((f"{layout.min_sequences} sequences a user", "sequences are of users with fewer"))
        funnel = []
        for (step, why), counted in zip(steps, sums, strict=True):
            told = f"{counted['lost']:,} {why}" if not why.startswith(";") else why[2:]
            if "filled" in counted:
                told += f"; {counted['filled']:,} steps were filled in the others"
            funnel.append(Loss(step, counted["users"], counted["points"], counted.get("sequences"), told))
            if not counted["points"]:
                raise BadInput(self._nothing(step, told, best))
        return funnel

    def _nothing(self, step: str, told: str, best: float) -> str:
        """Why no sequence is left, and what would have left one."""
        layout = self.task.layout
        what = layout.period if not layout.period.isdigit() else "sequence"
        if step.startswith("coverage"):
            lower = max(0.01, np.floor(best * 100) / 100)
            by_day = " or --day-coverage" if layout.day_coverage else ""
            return (
                f"no {what} of any user is covered to {layout.coverage:.0%}; the best reaches {best:.0%}: try --coverage "
                f"{lower:g}{by_day}, a longer --step or a shorter --period"
            )
        if step.startswith("gaps"):
            allow = "" if layout.max_gap is None else f" and a --max-gap above {layout.max_gap}"
            return f"every sequence has a gap that the rule --gaps {layout.gaps} leaves open; allow --gaps hold{allow}"
        if step.startswith("cut into") and layout.seconds is None:
            most = int(best)
            return f"no user has {layout.length} points; the busiest has {most}: try --period {max(2, most)}"
        return f"no point is left after the step {step!r}: {told}"

    def thin(self) -> Loss:
        """Drop sequences until every cell in what is left is visited by enough people: cutting drops people, too.

        Raises:
            BadInput: nothing is left.
        """
        n, least = self.mapper().n_cells[0], self.task.min_users
        users: list[NDArray] = []
        row, cell, observed, first = [], [], [], 0
        for table in self._cuts():
            cells = np.sort(list_column(table, "cells"), axis=1)
            fresh = np.ones(cells.shape, bool)
            fresh[:, 1:] = cells[:, 1:] != cells[:, :-1]
            row.append(np.nonzero(fresh)[0] + first)
            first += len(table)
            cell.append(cells[fresh].astype(np.int64))
            users.append(table["user"].to_numpy(zero_copy_only=False))
            whole = np.full(len(table), self.task.layout.length)
            observed.append(table["observed"].to_numpy() if "observed" in table.column_names else whole)
        owner = pd.factorize(np.concatenate(users))[0]
        rows, cells, points = np.concatenate(row), np.concatenate(cell), np.concatenate(observed)
        kept = np.ones(len(owner), bool)
        while True:
            pairs = np.unique(owner[rows] * n + cells)
            few = np.bincount(pairs % n, minlength=n) < least
            bad = np.unique(rows[few[cells]])
            if not len(bad):
                break
            kept[bad] = False
            there = kept[rows]
            rows, cells = rows[there], cells[there]
        if not kept.any():
            raise BadInput(
                f"no sequence is left whose cells are all visited by {least} users; use fewer --min-users or larger cells"
            )
        self.kept = kept
        why = f"{np.count_nonzero(~kept):,} sequences visit cells that fewer than {least} users visit in what was cut"
        left = len(np.unique(owner[kept]))
        return Loss(f"{least} users a cell, again", left, int(points[kept].sum()), int(kept.sum()), why)

    def rows(self) -> tuple[NDArray, NDArray[np.int64], NDArray[np.float64]]:
        """User, end and features of every sequence."""
        users, ends, features = [], [], []
        for table in self._cuts():
            users.append(table["user"].to_numpy(zero_copy_only=False).astype(str))
            features.append(list_column(table, "features").copy())
            if self.task.layout.seconds is None:
                ends.append(list_column(table, "moments")[:, -1].copy())
            else:
                ends.append(table["start"].to_numpy().astype(np.int64))
        return np.concatenate(users), np.concatenate(ends), np.concatenate(features)

    def _cuts(self) -> Iterator[pa.Table]:
        """The sequences of all shards by the rank of their user, whatever the shards."""
        first = 0
        for table in self.tracks.by_rank("cut", _columns(self.task.layout)):
            last = first + len(table)
            yield table if self.kept is None else table.filter(pa.array(self.kept[first:last]))
            first = last

    def tables(self, own: Mapping[str, NDArray]) -> Iterator[pa.Table]:
        """The rows of the dataset, shard by shard, with columns that only all rows together could tell."""
        first = 0
        for table in self._cuts():
            rows = slice(first, first + len(table))
            first += len(table)
            columns = {c: table[c] for c in table.column_names if c != "features"}
            columns |= {k: pa.array(v[rows]) for k, v in own.items()}
            order = ["user", "start", "split", "home", "work", "cluster", "person"]
            yield pa.table({c: columns[c] for c in [*order, *(c for c in columns if c not in order)]})


def _columns(layout: Layout) -> list[str]:
    """Of the table of a shard's sequences."""
    more = ["moments"] if layout.seconds is None else ["observed"]
    return ["user", "start", "home", "work", "features", *more, "cells"]


def _outline(box: tuple[float, float, float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points along the border of a box, so close that what covers them covers the box in any projection."""
    south, west, north, east = box
    lat, lon = np.meshgrid(np.linspace(south, north, 65), np.linspace(west, east, 65))
    return lat.ravel(), lon.ravel()


def _census(job: Job, s: int) -> None:
    """How many users of a shard visit each cell."""
    points = job.tracks.points(s)
    cell = job.mapper().encode(points.lat, points.lon)
    pairs = pd.DataFrame({"user": points.user, "cell": cell})[cell >= 0].drop_duplicates()
    cells, users = np.unique(pairs["cell"].to_numpy(), return_counts=True)
    job.tracks.store.put(f"census-{s:05d}", [pa.table({"cell": cells, "users": users})], {})


def _cut(job: Job, s: int) -> None:
    """The sequences of a shard, with what can be told of each by itself."""
    task, mapper = job.task, job.mapper()
    points = job.tracks.points(s)
    cell = mapper.encode(points.lat, points.lon) if len(points) else np.empty(0, np.int64)
    counts: list[dict[str, int]] = []

    def keep(mask: NDArray[np.bool_]) -> None:
        nonlocal points, cell
        lost = int(np.count_nonzero(~mask))
        if lost:
            points, cell = points.take(mask), cell[mask]
        counts.append({"users": points.n_users(), "points": len(points), "lost": lost})

    keep(cell >= 0)
    if job.closed is not None:
        keep(~np.isin(cell, job.closed))
    seconds = local_seconds(points.time, task.timezone)
    names, user = points.names, points.user
    del points
    found: Cut = cut(user, seconds, cell, task.layout)
    moments = found.moments
    home, work = home_and_work(found.cells, moments % 86_400 / 3600, (moments - MONDAY) // 86_400 % 7 >= 5)
    columns = {
        "user": pa.array(names[found.owner], pa.string()),
        "start": pa.array(moments[:, 0].astype("datetime64[s]")),
        "home": pa.array(home.astype(np.int32)),
        "work": pa.array(work.astype(np.int32)),
        "features": pa.FixedSizeListArray.from_arrays(movement(found.cells, home, work, mapper).ravel(), 5),
    }
    if task.layout.seconds is None:
        columns["moments"] = pa.FixedSizeListArray.from_arrays(pa.array(moments.ravel()), task.layout.length)
    else:
        columns["observed"] = pa.array(found.observed.astype(np.int32))
    columns["cells"] = fixed_list(found.cells)
    table = pa.table(columns).take(np.argsort(user_rank(names)[found.owner], kind="stable"))
    job.tracks.store.put(f"cut-{s:05d}", [table], {"counts": counts + found.counts, "best": found.best})
