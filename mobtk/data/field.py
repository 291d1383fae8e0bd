"""A field on disk: values over time and place, its nodes, a graph of them, and how they came about.

A folder of ``dataset.toml`` (what, where from, split, versions), ``values.npy`` (memory-mapped), ``nodes.parquet`` (with
positions: GeoParquet) and, where there is a graph, ``edges.parquet``.
"""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import geopandas
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from msgspec import Struct, field
from numpy.typing import NDArray

from mobtk._version import __version__
from mobtk.data.cut import SPLITS
from mobtk.errors import BadInput, first_line
from mobtk.storage import PathLike, fingerprint, new_folder, write_text

VALUES = 4_000_000
"""Values that are read at once where a whole field is: it may be larger than memory."""


class FieldInfo(Struct, omit_defaults=True, tag_field="kind", tag="field"):
    """What ``dataset.toml`` of a field holds.

    Args:
        name: of the field.
        step: duration of a step such as ``5min``.
        start: local time of the first step, ISO 8601.
        shape: ``(T, N, C)``.
        channels: what is measured, a name each.
        cuts: steps at which training, validation and test end.
        missing: share of values that are missing.
        sources: files it was made from.
        licence: of the data, as far as told.
        settings: the arguments of the preparation.
        notes: what the preparation changed and what is odd about the values, a sentence each.
        sha256: of ``values.npy``.
        graph_sha256: of ``edges.parquet``.
        mobtk: version that wrote it.
    """

    name: str
    step: str
    start: str
    shape: tuple[int, int, int]
    channels: tuple[str, ...]
    cuts: tuple[int, int, int]
    missing: float = 0.0
    sources: list[str] = field(default_factory=list)
    licence: str = "not stated"
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sha256: str = ""
    graph_sha256: str = ""
    mobtk: str = ""


class Field:
    """Values over time and place, read from a folder.

    Args:
        path: the folder.

    Attributes:
        values: ``(T, N, C)`` float32, memory-mapped; NaN where nothing was measured.
        nodes: a row a node, with ``name`` and, where positions are known, a geometry.

    Raises:
        BadInput: it is no field, or one of its files is damaged.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not (self.path / "dataset.toml").is_file():
            raise BadInput(f"{path} is not a field (it has no dataset.toml); make one with: mobtk data field")
        try:
            tree = tomllib.loads((self.path / "dataset.toml").read_text(encoding="utf-8"))
            if tree.get("kind") != "field":
                held = tree.get("kind", "sequences")
                way = f"; make one of them with: mobtk data field {path} -o FIELD" if held == "sequences" else ""
                raise BadInput(f"{path} holds {held} and no field{way}")
            self.info = msgspec.convert(tree, FieldInfo)
            self.values: NDArray[np.float32] = np.load(self.path / "values.npy", mmap_mode="r", allow_pickle=False)
            if self.values.shape != self.info.shape or self.values.dtype != np.float32:
                raise ValueError(f"values.npy holds {self.values.dtype} of shape {self.values.shape}, not {self.info.shape}")
            self.nodes = _read_nodes(self.path / "nodes.parquet")
            if len(self.nodes) != self.info.shape[1]:
                raise ValueError(f"nodes.parquet holds {len(self.nodes)} nodes, values.npy {self.info.shape[1]}")
        except (OSError, ValueError, pa.ArrowException, msgspec.ValidationError) as error:
            raise BadInput(f"field {path} is damaged: {first_line(error)}; make it again") from None

    def __repr__(self) -> str:
        return f"Field({str(self.path)!r}, {len(self):,} steps of {self.info.step}, {self.info.shape[1]:,} nodes)"

    def __len__(self) -> int:
        return self.info.shape[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``dataset.toml``, which holds those of the other files: two fields with one are the same."""
        return fingerprint(self.path / "dataset.toml")

    @property
    def steps_per_day(self) -> int:
        """Steps of a day; 1 where a step is longer."""
        return max(1, round(pd.Timedelta("1D") / pd.Timedelta(self.info.step)))

    def times(self) -> pd.DatetimeIndex:
        """Local time of each step."""
        return pd.date_range(self.info.start, periods=len(self), freq=self.info.step)

    def clock(self, steps: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """``(T, 2)``: the step of the day and the day of the week (Monday is 0) of each step, or of others beyond them."""
        times = self.times() if steps is None else pd.DatetimeIndex(self.times()[0] + steps * pd.Timedelta(self.info.step))
        of_day = (times - times.normalize()) // pd.Timedelta(self.info.step)
        return np.column_stack([np.asarray(of_day) % self.steps_per_day, times.day_of_week]).astype(np.int64)

    def graph(self) -> NDArray[np.float32] | None:
        """``(N, N)`` weights of the edges from each node (row) to each other, or ``None`` where there is no graph."""
        file = self.path / "edges.parquet"
        if not file.is_file():
            return None
        edges = pd.read_parquet(file)
        weights = np.zeros((self.info.shape[1],) * 2, np.float32)
        weights[edges["source"], edges["target"]] = edges["weight"]
        return weights

    def split(self, name: str) -> tuple[int, int]:
        """First step of a split and the step after its last."""
        if name not in SPLITS:
            raise BadInput(f"there is no split {name!r}; choose one of {', '.join(SPLITS)}")
        i = SPLITS.index(name)
        return (0, *self.info.cuts)[i], self.info.cuts[i]

    def windows(self, split: str, history: int, horizon: int) -> NDArray[np.int64]:
        """First steps of all windows of ``history`` and ``horizon`` steps, of which the horizon lies in the split.

        The history may reach back into the split before, as in the benchmarks of long-term forecasting (Zhou et al. 2021,
        https://arxiv.org/abs/2012.07436), so every step of a split but for the first of training is foretold.

        Raises:
            BadInput: the split is too short for any.
        """
        first, end = self.split(split)
        starts = np.arange(max(0, first - history), end - history - horizon + 1)
        if not len(starts):
            have = f"{end - first} steps" + ("" if first else " and nothing before them")
            raise BadInput(
                f"split {split!r} of field {self.path} has {have}: too few for a history of {history} and a horizon of "
                f"{horizon}; shorten them, or give it a larger share"
            )
        return starts

    @classmethod
    def write(
        cls,
        path: PathLike,
        info: FieldInfo,
        values: NDArray[np.float32],
        nodes: pd.DataFrame,
        edges: pd.DataFrame | None = None,
        *,
        replace: bool = False,
        inputs: Iterable[PathLike] = (),
    ) -> Self:
        """Write a field, whole or not at all.

        Args:
            path: the folder, which must not exist unless ``replace``.
            info: what goes into ``dataset.toml``; hashes and the share that is missing are filled in.
            values: ``(T, N, C)``, NaN where nothing was measured.
            nodes: ``name`` of each node and, where known, ``lat`` and ``lon``.
            edges: ``source`` and ``target`` (numbers of nodes) and ``weight``.
            replace: replace an existing folder.
            inputs: files it was made from, which must not lie in a folder that is replaced.
        """
        unknown = sum(int(np.isnan(part).sum()) for part in np.array_split(values, -(-values.size // VALUES)))
        info.mobtk, info.missing = __version__, unknown / values.size
        with new_folder(path, replace=replace, inputs=inputs) as folder:
            np.save(folder / "values.npy", np.asarray(values, np.float32), allow_pickle=False)
            if {"lat", "lon"} <= set(nodes.columns):
                points = geopandas.points_from_xy(nodes["lon"], nodes["lat"], crs="EPSG:4326")
                geopandas.GeoDataFrame(nodes, geometry=points).to_parquet(folder / "nodes.parquet")
            else:
                nodes.to_parquet(folder / "nodes.parquet")
            info.sha256 = fingerprint(folder / "values.npy")
            if edges is not None:
                edges.to_parquet(folder / "edges.parquet")
                info.graph_sha256 = fingerprint(folder / "edges.parquet")
            write_text(folder / "dataset.toml", tomli_w.dumps(msgspec.to_builtins(info)))
        return cls(path)


def _read_nodes(file: Path) -> pd.DataFrame:
    if b"geo" in (pq.read_schema(file).metadata or {}):
        nodes: pd.DataFrame = geopandas.read_parquet(file)
        return nodes
    return pd.read_parquet(file)


def cut(steps: int, shares: Sequence[float], cuts: Sequence[int] | None = None) -> tuple[int, int, int]:
    """Steps at which training, validation and test end: by shares of all, or as they are said.

    Raises:
        BadInput: they are not three, in order, within the field.
    """
    if cuts is None:
        if len(shares) != 3 or not min(shares) >= 0 or not abs(sum(shares) - 1) <= 1e-6:
            raise BadInput(f"shares {tuple(shares)} are not three parts of 1, such as 0.6,0.2,0.2")
        a, b = (round(steps * part) for part in (shares[0], shares[0] + shares[1]))
        return a, b, steps
    if len(cuts) != 3 or not 0 < cuts[0] <= cuts[1] <= cuts[2] <= steps:
        raise BadInput(f"cuts {tuple(cuts)} are not three steps in order up to {steps:,}, such as 8640,11520,14400")
    return cuts[0], cuts[1], cuts[2]


def card(found: Field) -> dict[str, Any]:
    """What a field is, as plain data."""
    info, times = found.info, found.times()
    steps, nodes, _ = info.shape
    counts = {name: end - first for name in SPLITS for first, end in [found.split(name)]}
    edges = found.path / "edges.parquet"
    return {
        "path": str(found.path),
        "name": info.name,
        "licence": info.licence,
        "steps": steps,
        "nodes": nodes,
        "channels": list(info.channels),
        "step": info.step,
        "from": str(times[0]),
        "to": str(times[-1]),
        "missing": info.missing,
        "split": counts,
        "edges": pq.read_metadata(edges).num_rows if edges.is_file() else None,
        "positions": "geometry" in found.nodes,
        "sources": info.sources,
        "notes": info.notes,
        "mobtk": info.mobtk,
        "fingerprint": found.fingerprint,
    }


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many rows, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
