"""From files to clean tracks, user by user, at any size: read, keep by rule, bring together by user, sort, clean.

What ``prepare``, ``visits`` and ``check`` begin with. The points of a user end in one shard; shards are ranges of a hash of
the user's name, each small enough for memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from mobtk._version import __version__
from mobtk.data.clean import Rules
from mobtk.data.formats import Reading
from mobtk.data.funnel import Loss
from mobtk.data.points import MISSING, Points, concat, user_hash, user_rank
from mobtk.data.shards import Store, Workers
from mobtk.data.sources import Piece, estimate_rows, pieces, read_piece, sample, settle
from mobtk.errors import BadInput
from mobtk.storage import PathLike

IN_MEMORY = 12_000_000
"""Points up to which nothing is written on the way."""
SHARD = 3_000_000
"""Points of a shard, about."""
ROWS = ["user", "time", "lat", "lon"]
NAMES = ["name", "depth"]


class Source(Struct, frozen=True):
    """What is read, and by which rules it is kept.

    Args:
        files: paths, sizes and times of change; of the table of places, too.
        reading: how rows become points.
        rules: which stay.
        pieces: in which they are read.
        bits: in a folder there are ``2 ** bits`` shards.
        rows: how many rows there are, about.
        mobtk: version that reads them.
    """

    files: tuple[tuple[str, int, int], ...]
    reading: Reading
    rules: Rules
    pieces: tuple[Piece, ...]
    bits: int
    rows: int
    mobtk: str = __version__


def plan(sources: PathLike | Sequence[PathLike], wish: Reading, rules: Rules, *, many: bool = False) -> Source:
    """Look at the files and decide how they are read.

    Args:
        sources: files, folders, globs.
        wish: what is known of their form.
        rules: which points stay.
        many: whether several workers share the work.
    """
    rules.check()
    if rules.max_accuracy is not None and wish.accuracy is None:
        raise BadInput("--max-accuracy wants --accuracy too: the column that holds the accuracy in metres")
    files, reading = settle(sources, wish)
    rows = estimate_rows(files, reading)
    parts = tuple(pieces(files, reading))
    if not parts:
        raise BadInput(f"{files[0]} has a header but no rows")
    bits = 0 if rows <= IN_MEMORY and not many else max(2 if many else 0, int(np.ceil(np.log2(max(1, rows / SHARD)))))
    if reading.places is not None:
        files = [*files, Path(reading.places)]
    stats = [(str(f), f.stat()) for f in files]
    return Source(tuple((n, s.st_size, s.st_mtime_ns) for n, s in stats), reading, rules, parts, min(bits, 12), rows)


@dataclass
class Tracks:
    """A job over a source: what its tasks read and where they leave what they make.

    In a folder, there is a shard for each range of a hash of the user's name. In memory, a user whose points all lie in one
    piece stays there, so that a file that is sorted by user is hardly moved; only the others are brought together.

    Args:
        source: what is read.
        folder: where tasks leave what they make; in memory by default.
    """

    source: Source
    folder: Path | None = None
    store: Store = field(init=False)
    read: dict[int, tuple[Points, NDArray[np.int8]]] = field(default_factory=dict)
    clean: dict[int, Points] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.folder)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return 1 << self.source.bits if self.folder is not None else len(self.source.pieces) + (1 << self._rest_bits)

    @cached_property
    def _rest_bits(self) -> int:
        return int(np.ceil(np.log2(max(1.0, self.source.rows / SHARD))))

    @cached_property
    def _shared(self) -> list[NDArray[np.bool_]]:
        """Which names of each piece have points in another piece too."""
        pieces = range(len(self.source.pieces))
        codes, _ = pd.factorize(np.concatenate([self.read[i][0].names for i in pieces]))
        twice = (np.bincount(codes) > 1)[codes]
        return np.split(twice, np.cumsum([len(self.read[i][0].names) for i in pieces])[:-1])

    def parts(self, shard: int) -> list[tuple[Points, NDArray[np.int8]]]:
        """The points of a shard as they were read, and how far each of its users came."""
        pieces = len(self.source.pieces)
        if self.folder is not None:
            return [self._stored(i, shard) for i in range(pieces)]
        if shard < pieces:
            return [_some(*self.read[shard], ~self._shared[shard])]
        found = []
        for i in range(pieces):
            points, seen = self.read[i]
            mine = self._shared[i] & (_shard_of(points.names, self._rest_bits) == shard - pieces)
            if mine.any():
                found.append(_some(points, seen, mine))
        return found

    def _stored(self, i: int, shard: int) -> tuple[Points, NDArray[np.int8]]:
        names = self.store.get(f"read-{i:05d}", NAMES, shard)
        points = _from_table(self.store.get(f"read-{i:05d}", ROWS, shard), names["name"].to_numpy(zero_copy_only=False))
        return points, names["depth"].to_numpy()

    def points(self, shard: int) -> Points:
        """The clean points of a shard, by user and time."""
        if self.folder is None:
            return self.clean[shard]
        rows = self.store.get(f"track-{shard:05d}", ROWS)
        return _from_table(rows, self.store.get(f"track-{shard:05d}", ["name"])["name"].to_numpy(zero_copy_only=False))

    def todo(self, stage: str) -> list[int]:
        """Shards of a stage that are not done."""
        return [s for s in range(self.shards) if not self.store.has(f"{stage}-{s:05d}")]

    def by_rank(self, stage: str, columns: list[str]) -> Iterator[pa.Table]:
        """The rows that a stage made of all shards, by the rank of their ``user``, whatever the shards."""
        tables = (self.store.get(f"{stage}-{s:05d}", columns) for s in range(self.shards))
        if self.folder is not None:  # there, shards are ranges of that rank
            yield from (table for table in tables if len(table))
            return
        table = pa.concat_tables(tables)
        codes, names = pd.factorize(table["user"].to_numpy(zero_copy_only=False))
        order = np.argsort(user_rank(np.asarray(names, object))[codes], kind="stable")
        yield table.take(order).combine_chunks()

    def box(self) -> tuple[float, float, float, float] | None:
        """South, west, north and east of all clean points."""
        boxes = [n["box"] for s in range(self.shards) if (n := self.store.note(f"track-{s:05d}"))["box"]]
        if not boxes:
            return None
        south, west, north, east = zip(*boxes, strict=True)
        return min(south), min(west), max(north), max(east)

    def funnel(self) -> list[Loss]:
        """What each step lost so far.

        Raises:
            BadInput: nothing is left.
        """
        scattered = [self.store.note(f"read-{i:05d}") for i in range(len(self.source.pieces))]
        notes = [self.store.note(f"track-{s:05d}") for s in range(self.shards)]
        rules, steps = self.source.rules, self.source.rules.row_steps()
        broken = sum(n["broken"] for n in scattered)
        reached = np.sum([n["reached"] for n in scattered], axis=0)
        users = np.sum([n["users"] for n in notes], axis=0)
        funnel = [Loss("read", int(users[0]), int(reached[0]) + broken)]
        if broken:
            funnel.append(
                Loss("whole lines", int(users[0]), int(reached[0]), why=f"{broken:,} lines have too few or many columns")
            )
        for i, (step, why) in enumerate(steps):
            lost = int(reached[i] - reached[i + 1])
            if step == "complete" and lost:
                user, time, place = np.sum([n["lacks"] for n in scattered], axis=0)
                why = f"rows lack a user ({user:,}), a time ({time:,}) or a position ({place:,})"
            funnel.append(Loss(step, int(users[i + 1]), int(reached[i + 1]), why=f"{lost:,} {why}"))
            if step == "on earth" and lost > reached[i] / 2:
                raise BadInput(_not_degrees(scattered, lost, int(reached[i]), self.source.reading))
            self._check_left(funnel, why)
        for i, step in enumerate(rules.track_steps()):
            sums = {key: sum(n["counts"][i][key] for n in notes) for key in notes[0]["counts"][i]}
            why = rules.why(step, sums["lost"], sums.get("elsewhere", 0))
            funnel.append(Loss(step, sums["users"], sums["points"], why=why))
            self._check_left(funnel, why.split(" ", 1)[1])
        return funnel

    def _check_left(self, funnel: list[Loss], why: str) -> None:
        if not funnel[-1].points:
            names = ", ".join(f for f, _, _ in self.source.files[:3]) + (" ..." if len(self.source.files) > 3 else "")
            if not funnel[0].points:
                raise BadInput(f"{names} has a header but no rows")
            hint = _time_hint(self) if funnel[-1].step == "times read" else ""
            raise BadInput(f"no point of {names} is left after the step {funnel[-1].step!r}: all {why}{hint}")


def _time_hint(tracks: Tracks) -> str:
    """What a time that cannot be read looks like."""
    source = tracks.source
    try:
        column = sample(Path(source.files[0][0]), source.reading, 100)[str(source.reading.time)]
        first = next((str(v) for v in column.to_pylist() if v is not None), "nothing")
    except (KeyError, BadInput, ValueError, OverflowError):
        return ""
    written = source.reading.time_format
    wrong = "ISO 8601: say how it is written with --time-format, such as '%d/%m/%Y %H:%M'"
    return f"; column {source.reading.time!r} begins with {first!r}, which is not {repr(written) if written else wrong}"


def _not_degrees(notes: list[dict[str, Any]], lost: int, of: int, reading: Reading) -> str:
    """Why most positions are no degrees, and what would make them so."""
    extreme = np.nanmax([n["extreme"] for n in notes], axis=0)
    column, value, limit = ("lat", extreme[0], 90) if extreme[0] > 90 else ("lon", extreme[1], 180)
    if extreme[0] <= 180 and extreme[1] <= 90:
        hint = "swap --lat and --lon"
    else:
        hint = "give --scale, such as 1e-6 for millionths of a degree, or the --crs they are in"
    return f"{column} {value:g} is outside -{limit}..{limit} degrees (as {lost:,} of {of:,} points); {hint}"


def collect(tracks: Tracks, workers: Workers) -> None:
    """Read everything and bring it together by user, as far as it is not done."""
    pieces = range(len(tracks.source.pieces))
    workers.run(_read, tracks, [i for i in pieces if not tracks.store.has(f"read-{i:05d}")], "reading")
    workers.run(_track, tracks, [s for s in range(tracks.shards) if not tracks.store.has(f"track-{s:05d}")], "sorting")
    tracks.read.clear()
    for i in pieces:
        tracks.store.drop(f"read-{i:05d}")


def _read(tracks: Tracks, i: int) -> None:
    """Read a piece and keep what the rules for rows keep; in a folder, part it by shard."""
    source = tracks.source
    points, broken = read_piece(source.pieces[i], source.reading)
    rules, steps = source.rules, len(source.rules.row_steps())
    seen = np.full(len(points.names), steps, np.int8)
    reached = np.full(steps + 1, len(points))
    extreme, lacks = [0.0, 0.0], [0, 0, 0]
    if not rules.all_pass(points):
        depth = rules.depth(points)
        reached = np.bincount(depth, minlength=steps + 1)[::-1].cumsum()[::-1]
        seen[:] = -1
        named = points.user >= 0
        np.maximum.at(seen, points.user[named], depth[named])
        off = depth == [s for s, _ in rules.row_steps()].index("on earth")
        extreme = [float(np.abs(a[off]).max(initial=0.0)) for a in (points.lat, points.lon)]
        nowhere = ~(np.isfinite(points.lat) & np.isfinite(points.lon))
        lacks = [int(np.count_nonzero(m)) for m in (points.user < 0, points.time == MISSING, nowhere)]
        points = points.take(depth == steps)
    note = {"broken": broken, "reached": reached.tolist(), "extreme": extreme, "lacks": lacks}
    if tracks.folder is None:
        tracks.read[i] = points, seen
        tracks.store.put(f"read-{i:05d}", [], note)
        return
    shard = _shard_of(points.names, source.bits)
    row_shard = shard[points.user]
    order = np.argsort(row_shard.astype(np.uint16), kind="stable")
    first = np.searchsorted(row_shard[order], np.arange((1 << source.bits) + 1))
    tables = []
    for s in range(1 << source.bits):
        who = np.flatnonzero((shard == s) & (seen >= 0))
        code = np.full(len(points.names), -1, np.int32)
        code[who] = np.arange(len(who), dtype=np.int32)
        mine = points.take(order[first[s] : first[s + 1]])
        tables.append(pa.table({"user": code[mine.user], "time": mine.time, "lat": mine.lat, "lon": mine.lon}))
        tables.append(pa.table({"name": pa.array(points.names[who], pa.string()), "depth": seen[who]}))
    tracks.store.put(f"read-{i:05d}", tables, note)


def _track(tracks: Tracks, s: int) -> None:
    """Bring the points of a shard together, sort them and clean them."""
    rules = tracks.source.rules
    parts = tracks.parts(s)
    points = parts[0][0] if len(parts) == 1 else concat([p for p, _ in parts])
    seen = np.full(len(points.names), -1, np.int8)
    if len(parts) == 1:
        seen = parts[0][1]
    elif parts:
        rank = pd.Index(points.names)
        for part, depth in parts:
            np.maximum.at(seen, rank.get_indexer(part.names), depth)
    del parts
    steps = len(rules.row_steps())
    points, counts = rules.clean(points)
    box = (
        [float(v) for v in (points.lat.min(), points.lon.min(), points.lat.max(), points.lon.max())] if len(points) else None
    )
    note = {
        "users": np.bincount(seen[seen >= 0], minlength=steps + 1)[::-1].cumsum()[::-1].tolist(),
        "counts": counts,
        "box": box,
        "span": [int(points.time.min()), int(points.time.max())] if len(points) else None,
    }
    if tracks.folder is None:
        tracks.clean[s] = points
        tracks.store.put(f"track-{s:05d}", [], note)
        return
    rows = pa.table({"user": points.user, "time": points.time, "lat": points.lat, "lon": points.lon})
    tracks.store.put(f"track-{s:05d}", [rows, pa.table({"name": pa.array(points.names, pa.string())})], note)


def _shard_of(names: NDArray, bits: int) -> NDArray[np.int64]:
    return (user_hash(names) >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(names), np.int64)


def _some(points: Points, seen: NDArray[np.int8], names: NDArray[np.bool_]) -> tuple[Points, NDArray[np.int8]]:
    """The points of some of the users, and how far those came."""
    if names.all():
        return points, seen
    code = np.full(len(names), -1, np.int32)
    code[names] = np.arange(np.count_nonzero(names), dtype=np.int32)
    mine = points.take(names[points.user])
    mine.names, mine.user = points.names[names], code[mine.user]
    return mine, seen[names]


def _from_table(rows: pa.Table, names: NDArray) -> Points:
    user, time, lat, lon = (rows[c].chunk(0).to_numpy() for c in ROWS)
    return Points(names.astype(object), user, time, lat, lon)
