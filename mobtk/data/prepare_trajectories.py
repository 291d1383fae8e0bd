"""From points in files to trajectories: cleaned, cut where nothing was measured for long, split; with their funnel."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.data.clean import Rules
from mobtk.data.cut import check_split, split_rows
from mobtk.data.formats import Reading
from mobtk.data.funnel import Loss
from mobtk.data.moments import check_zone
from mobtk.data.points import user_rank
from mobtk.data.shards import Workers, work_folder
from mobtk.data.tracks import Source, Tracks, collect, plan
from mobtk.data.trajectories import Trajectories, TrajectoriesInfo
from mobtk.errors import BadInput
from mobtk.storage import PathLike, check_replaceable

COLUMNS = ["user", "time", "lat", "lon"]


class Cutting(Struct, frozen=True):
    """Where trajectories begin and end.

    Args:
        gap: seconds without a point that end one.
        every: seconds, by the trajectory's clock, of which the first point stays only; 0 keeps all.
        min_points: shorter ones go.
        max_points: longer ones are cut into equal parts of so many at most.
    """

    gap: float = 600.0
    every: float = 0.0
    min_points: int = 8
    max_points: int = 1024

    def check(self) -> None:
        """Refuse what is no cutting."""
        if not self.gap > 0 or not self.every >= 0 or self.every >= self.gap or 0 < self.every < 1e-6:
            raise BadInput(f"--gap is a duration above 0 and --every one below it, not {self.gap:g} s and {self.every:g} s")
        if not 2 <= self.min_points <= self.max_points:
            raise BadInput(
                f"a trajectory has 2 points at least: --min-points {self.min_points} and --max-points {self.max_points} are "
                "no numbers from 2 on in that order"
            )


def make_trajectories(
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    reading: Reading | None = None,
    rules: Rules | None = None,
    cutting: Cutting | None = None,
    timezone: str = "UTC",
    split: str = "user",
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    name: str | None = None,
    licence: str = "not stated",
    replace: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
) -> Trajectories:
    """Make trajectories of points. ``mobtk data trajectories`` does the same.

    Up to twelve million points are held in memory; more go through a hidden folder beside ``out``, in shards by user. A job
    that was killed goes on where it was when it is started again.

    Args:
        files: a file, a folder, a glob, or several.
        out: folder of the trajectories.
        reading: how rows become points; what is not said is found by looking at the files.
        rules: which points stay.
        cutting: where trajectories begin and end.
        timezone: where the people are, as an IANA name: hours and weekdays are read there.
        split: by ``user``, or by ``time``.
        shares: of users, or of time, for training, validation and test.
        seed: of the split.
        name: of the dataset; the folder's by default.
        licence: of the data, for the record.
        replace: replace an existing folder.
        workers: processes that share the work, by Dask.
        scheduler: address of a Dask scheduler instead; its workers must see the same files.

    Raises:
        BadInput: with one sentence that says what would have worked. Nothing is written then.
    """
    reading, rules, cutting = reading or Reading(format="auto"), rules or Rules(), cutting or Cutting()
    cutting.check()
    check_split(split, shares, seed)
    check_zone(timezone)
    check_zone(reading.naive, "--naive")
    crew = Workers(workers, scheduler)
    source = plan(files, reading, rules, many=crew.many)
    inputs = [f for f, _, _ in source.files]
    check_replaceable(out, replace, inputs)
    task = Task(source, cutting)
    folder = work_folder(Path(out), task) if source.bits or crew.many else contextlib.nullcontext()
    with crew, folder as work:
        job = Job(task, Tracks(source, work))
        collect(job.tracks, crew)
        funnel = job.tracks.funnel()
        crew.run(_cut, job, job.tracks.todo("cut"), "cutting")
        funnel += job.funnel()
        users, ends = job.rows()
        part, cuts = split_rows(users, ends, split, shares, seed, "a shorter --gap or fewer --max-points")
        told = {k: v for part in (source.reading, rules, cutting) for k, v in msgspec.to_builtins(part).items()}
        told |= {"split": split, "shares": list(shares), "seed": seed}
        info = TrajectoriesInfo(
            name=name or Path(out).name,
            timezone=timezone,
            sources=inputs[:100],
            licence=licence,
            settings={k: v for k, v in told.items() if v is not None},
            funnel=funnel,
            cuts=[c / 1e6 for c in cuts],
        )
        return Trajectories.write(out, info, job.tables(part), replace=replace, inputs=inputs)


class Task(Struct, frozen=True):
    """All that decides what a preparation makes of its points."""

    source: Source
    cutting: Cutting


@dataclass
class Job:
    """A preparation on its way."""

    task: Task
    tracks: Tracks

    def rows(self) -> tuple[NDArray, NDArray[np.int64]]:
        """User and last moment of every trajectory."""
        users, ends = [], []
        for table in self.tracks.by_rank("cut", COLUMNS):
            time = table["time"].combine_chunks()
            users.append(table["user"].to_numpy(zero_copy_only=False).astype(str))
            ends.append(time.flatten().to_numpy()[np.cumsum(time.value_lengths().to_numpy()) - 1])
        return np.concatenate(users), np.concatenate(ends)

    def tables(self, split: NDArray[np.str_]) -> Iterator[pa.Table]:
        """The rows of the dataset, shard by shard, each with its split."""
        first = 0
        for table in self.tracks.by_rank("cut", COLUMNS):
            yield table.append_column("split", pa.array(split[first : first + len(table)]))
            first += len(table)

    def funnel(self) -> list[Loss]:
        """What the cutting lost.

        Raises:
            BadInput: nothing is left.
        """
        cutting = self.task.cutting
        notes = [self.tracks.store.note(f"cut-{s:05d}") for s in range(self.tracks.shards)]
        sums = [{k: sum(n["counts"][i][k] for n in notes) for k in c} for i, c in enumerate(notes[0]["counts"])]
        steps = [(f"every {cutting.every:g} s", "points follow another sooner")] if cutting.every else []
        steps.append((f"{cutting.min_points} points", f"points are of shorter trajectories, cut at {cutting.gap:g} s"))
        told = [
            Loss(step, c["users"], c["points"], c.get("trajectories"), f"{c['lost']:,} {why}")
            for (step, why), c in zip(steps, sums, strict=True)
        ]
        if not told[-1].points:
            longest = max(n["longest"] for n in notes)
            raise BadInput(
                f"no trajectory has {cutting.min_points} points without a gap of {cutting.gap:g} s; the longest has "
                f"{longest}: try a longer --gap{', a shorter --every' if cutting.every else ''}"
                + (f", or --min-points {longest}" if longest > 1 else "")
            )
        return told


def _cut(job: Job, s: int) -> None:
    """The trajectories of a shard."""
    cutting = job.task.cutting
    points = job.tracks.points(s)
    counts = []
    fresh = np.ones(len(points), bool)
    fresh[1:] = (np.diff(points.user) != 0) | (np.diff(points.time) > cutting.gap * 1e6)
    if cutting.every:
        keep = _thinned(fresh, points.time, int(cutting.every * 1e6))
        points, fresh, lost = points.take(keep), fresh[keep], int(np.count_nonzero(~keep))
        counts.append({"users": points.n_users(), "points": len(points), "lost": lost})
    runs = np.diff(np.append(np.flatnonzero(fresh), len(points)))
    whole = np.repeat(runs, runs)  # points of the run that each is of
    piece = _since(fresh) * -(-whole // cutting.max_points) // np.maximum(whole, 1)  # long ones fall into equal parts
    pieces = np.flatnonzero(fresh | (np.diff(piece, prepend=0) != 0))
    lengths = np.diff(np.append(pieces, len(points)))
    stays = lengths >= cutting.min_points
    keep = np.repeat(stays, lengths)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths[stays])]), pa.int32())
    columns = {"user": pa.array(points.names[points.user[pieces[stays]]], pa.string())}
    for name in COLUMNS[1:]:
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(getattr(points, name)[keep]))
    table = pa.table(columns)
    codes = points.user[pieces[stays]]
    table = table.take(np.argsort(user_rank(points.names)[codes], kind="stable")) if len(codes) else table
    counts.append(
        {
            "users": len(np.unique(codes)),
            "points": int(keep.sum()),
            "trajectories": int(stays.sum()),
            "lost": int(np.count_nonzero(~keep)),
        }
    )
    note = {"counts": counts, "longest": int(lengths.max(initial=0))}
    job.tracks.store.put(f"cut-{s:05d}", [table], note)


def _since(fresh: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many rows each one is after the last fresh one; the first row is fresh."""
    at = np.arange(len(fresh))
    return at - np.maximum.accumulate(np.where(fresh, at, 0))


def _thinned(fresh: NDArray[np.bool_], time: NDArray[np.int64], apart: int) -> NDArray[np.bool_]:
    """The first point in each stretch of so many microseconds, by a clock that begins with each fresh row."""
    slot = (time - time[np.arange(len(time)) - _since(fresh)]) // apart
    kept: NDArray[np.bool_] = fresh | (np.diff(slot, prepend=-1) != 0)
    return kept
