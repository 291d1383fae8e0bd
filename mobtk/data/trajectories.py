"""Trajectories on disk: points as they were measured, a row a trajectory, read as they are needed.

A folder of ``dataset.toml`` (what, where from, funnel, versions) and ``trajectories.parquet``, whose row groups hold some
trajectories each. Only the groups in use are in memory, so a dataset may be larger than that.
"""

import tomllib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tomli_w
from msgspec import Struct, field
from numpy.typing import NDArray

from mobtk._version import __version__
from mobtk.data.cut import SPLITS
from mobtk.data.funnel import Loss
from mobtk.errors import BadInput, first_line
from mobtk.kernels import distance
from mobtk.storage import PathLike, fingerprint, new_folder, write_text

GROUP = 200_000
"""Points of a row group, about."""

TOLD = 1000
"""Trajectories that are looked at for a card, about."""

MIXED = 8
"""Row groups whose trajectories are mixed with each other in a pass over the data."""


class TrajectoriesInfo(Struct, omit_defaults=True, tag_field="kind", tag="trajectories"):
    """What ``dataset.toml`` holds.

    Args:
        name: of the dataset.
        timezone: where the people are, an IANA name.
        points: how many there are.
        split: trajectories in each split.
        sources: files it was made from.
        licence: of the data, as far as told.
        settings: the arguments of the preparation.
        funnel: what each step of the preparation lost.
        cuts: where the split is by time: the moments, in seconds since 1970, up to which training and validation reach.
        sha256: of ``trajectories.parquet``.
        mobtk: version that wrote it.
    """

    name: str
    timezone: str = "UTC"
    points: int = 0
    split: dict[str, int] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    licence: str = "not stated"
    settings: dict[str, Any] = field(default_factory=dict)
    funnel: list[Loss] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    sha256: str = ""
    mobtk: str = ""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One user's points in order.

    Args:
        user: whose.
        time: ``(n,)`` int64 microseconds since 1970 in UTC.
        lat, lon: ``(n,)`` float64 WGS84 degrees.
    """

    user: str
    time: NDArray[np.int64]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, points: slice) -> "Trajectory":
        return Trajectory(self.user, self.time[points], self.lat[points], self.lon[points])


class Trajectories:
    """Trajectories read from a folder, some row groups at a time.

    Args:
        path: the folder.

    Raises:
        BadInput: it holds something else, or one of its files is damaged.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not (self.path / "dataset.toml").is_file():
            raise BadInput(f"{path} holds no trajectories (it has no dataset.toml); make some with: mobtk data trajectories")
        try:
            tree = tomllib.loads((self.path / "dataset.toml").read_text(encoding="utf-8"))
            if tree.get("kind") != "trajectories":
                raise BadInput(f"{path} holds no trajectories; make some of files with: mobtk data trajectories")
            self.info = msgspec.convert(tree, TrajectoriesInfo)
            self._file = pq.ParquetFile(self.path / "trajectories.parquet")
            if missing := {"user", "split", "time", "lat", "lon"} - set(self._file.schema_arrow.names):
                raise ValueError(f"{', '.join(sorted(missing))} is missing")
        except (OSError, ValueError, pa.ArrowException, msgspec.ValidationError) as error:
            raise BadInput(f"trajectories {path} are damaged: {first_line(error)}; make them again") from None
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._firsts = np.cumsum([0, *sizes])
        self._held: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __repr__(self) -> str:
        return f"Trajectories({str(self.path)!r}, {len(self):,} of {self.info.points:,} points)"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``dataset.toml``, which holds that of the other file: two datasets with one are the same."""
        return fingerprint(self.path / "dataset.toml")

    @cached_property
    def _splits(self) -> NDArray[np.int8]:
        column = pc.index_in(self._file.read(columns=["split"])["split"], pa.array(SPLITS)).to_numpy()
        if np.isnan(column).any():
            raise BadInput(f"trajectories {self.path} are damaged: some are of no split; make them again")
        return column.astype(np.int8)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split: ``train``, ``valid`` or ``test``."""
        if split not in SPLITS:
            raise BadInput(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        return np.flatnonzero(self._splits == SPLITS.index(split))

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __getitem__(self, row: int) -> Trajectory:
        if not -len(self) <= row < len(self):
            raise IndexError(f"there is no trajectory {row}; there are {len(self):,}")
        row %= len(self)
        group = int(np.searchsorted(self._firsts, row, side="right")) - 1
        table = self._group(group)
        i = int(row - self._firsts[group])
        # copies: views would keep the whole row group in memory
        time, lat, lon = (table[name][i].values.to_numpy().copy() for name in ("time", "lat", "lon"))
        return Trajectory(table["user"][i].as_py(), time, lat, lon)

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[row] for row in range(len(self)))

    def _group(self, i: int) -> pa.Table:
        """A row group; those that were used last stay in memory."""
        if i not in self._held:
            if len(self._held) > MIXED:
                self._held.popitem(last=False)
            self._held[i] = self._file.read_row_group(i, columns=["user", "time", "lat", "lon"]).combine_chunks()
        self._held.move_to_end(i)
        return self._held[i]

    def mixed(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The same rows in a random order that reads :data:`MIXED` row groups at a time, each once.

        Row groups come in a random order; rows are mixed within so many of them.
        """
        group = np.searchsorted(self._firsts, rows, side="right") - 1
        order = rng.permutation(self._file.num_row_groups)
        turn = np.empty(len(order), np.int64)
        turn[order] = np.arange(len(order)) // MIXED
        return rows[np.lexsort((rng.random(len(rows)), turn[group]))]

    def some(self, n: int) -> list[Trajectory]:
        """About so many, from :data:`MIXED` row groups at most, evenly spread."""
        groups = np.unique(np.linspace(0, len(self._firsts) - 2, MIXED).astype(np.int64))
        rows = [np.linspace(self._firsts[g], self._firsts[g + 1] - 1, -(-n // len(groups))) for g in groups]
        return [self[int(row)] for row in np.unique(np.concatenate(rows).astype(np.int64))]

    def users(self) -> int:
        """How many different users there are."""
        return len(self._file.read(columns=["user"])["user"].unique())

    def extremes(self, name: str) -> tuple[float, float]:
        """The least and the largest ``time``, ``lat`` or ``lon``."""
        meta = self._file.metadata
        index = self._file.schema_arrow.names.index(name)
        found = [meta.row_group(i).column(index).statistics for i in range(meta.num_row_groups)]
        return min(s.min for s in found), max(s.max for s in found)

    @classmethod
    def write(
        cls,
        path: PathLike,
        info: TrajectoriesInfo,
        tables: Iterable[pa.Table],
        *,
        replace: bool = False,
        inputs: Iterable[PathLike] = (),
    ) -> Self:
        """Write a folder of trajectories, whole or not at all.

        Args:
            path: the folder, which must not exist unless ``replace``.
            info: what goes into ``dataset.toml``; counts and hash are filled in.
            tables: the rows, some at a time: ``user``, ``split``, and lists ``time`` (int64 microseconds since 1970 in UTC),
                ``lat`` and ``lon`` (degrees).
            replace: replace an existing folder.
            inputs: files it was made from, which must not lie in a folder that is replaced.
        """
        info.mobtk, info.points, info.split = __version__, 0, dict.fromkeys(SPLITS, 0)
        with new_folder(path, replace=replace, inputs=inputs) as folder:
            with pq.ParquetWriter(folder / "trajectories.parquet", SCHEMA, compression="zstd") as sink:
                for table in _in_groups(tables):
                    sink.write_table(table)
                    info.points += len(table["time"].combine_chunks().flatten())
                    for split, n in zip(*np.unique(table["split"].to_numpy(), return_counts=True), strict=True):
                        info.split[split] += int(n)
            if not info.points:
                raise BadInput(f"there are no trajectories to write to {path}")
            info.sha256 = fingerprint(folder / "trajectories.parquet")
            write_text(folder / "dataset.toml", tomli_w.dumps(msgspec.to_builtins(info)))
        return cls(path)


def card(found: Trajectories) -> dict[str, Any]:
    """What trajectories are, as plain data; medians are of some of them: see :meth:`Trajectories.some`."""
    some = found.some(TOLD)
    steps = np.concatenate([np.diff(t.time) for t in some]) / 1e6
    metres = np.concatenate([distance(t.lat[:-1], t.lon[:-1], t.lat[1:], t.lon[1:]) for t in some])
    low, high = zip(*(found.extremes(name) for name in ("time", "lat", "lon")), strict=True)
    first, last = (str(np.datetime64(int(t), "us").astype("datetime64[s]")).replace("T", " ") for t in (low[0], high[0]))
    return {
        "path": str(found.path),
        "name": found.info.name,
        "licence": found.info.licence,
        "rows": len(found),
        "users": found.users(),
        "points": found.info.points,
        "split": found.info.split,
        "from": first,
        "to": last,
        "timezone": found.info.timezone,
        "area": [list(low[1:]), list(high[1:])],
        "points_each": float(np.median([len(t) for t in some])),
        "minutes_each": float(np.median([(t.time[-1] - t.time[0]) / 6e7 for t in some])),
        "seconds_a_step": float(np.median(steps)),
        "metres_a_step": float(np.median(metres)),
        "sources": found.info.sources,
        "mobtk": found.info.mobtk,
        "fingerprint": found.fingerprint,
    }


SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("split", pa.string()),
        ("time", pa.list_(pa.int64())),
        ("lat", pa.list_(pa.float64())),
        ("lon", pa.list_(pa.float64())),
    ]
)


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of about :data:`GROUP` points, each to become a row group, however they came."""
    waiting: list[pa.Table] = []
    points = group = 0
    for table in tables:
        table = table.select(SCHEMA.names).cast(SCHEMA)
        ends = points + np.cumsum(table["time"].combine_chunks().value_lengths().to_numpy())
        groups = np.append(points, ends[:-1])[: len(ends)] // GROUP  # of the first point of each
        for first, last in pairwise([0, *(np.flatnonzero(np.diff(groups)) + 1), len(table)] if len(table) else []):
            if waiting and groups[first] != group:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
            group = groups[first]
            waiting.append(table.slice(first, last - first))
        points = ends[-1] if len(ends) else points
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
