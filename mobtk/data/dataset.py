"""A dataset on disk: sequences of cells, their traits and split, the mapper, and how they came about.

A folder of ``dataset.toml`` (what, where from, funnel, versions), ``mapper.json`` and ``sequences.parquet``.
"""

import json
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tomli_w
from msgspec import Struct, field
from numpy.typing import NDArray

from mobtk._version import __version__
from mobtk.contracts import SpatialMapper
from mobtk.data.cut import SPLITS
from mobtk.data.funnel import Loss
from mobtk.errors import BadInput, first_line
from mobtk.plugins import registry
from mobtk.storage import PathLike, fingerprint, new_folder, write_text


class Info(Struct, omit_defaults=True):
    """What ``dataset.toml`` holds.

    Args:
        name: of the dataset.
        sources: files it was made from.
        licence: of the data, as far as told.
        step: duration of a step such as ``1h``, or ``event`` where a step is a visit.
        steps: ``T``, steps of a sequence.
        steps_per_day: steps of a day; ``steps`` where a step is a visit.
        trait_sizes: number of values of each trait.
        settings: the arguments of the preparation.
        split: rows in each split.
        funnel: what each step of the preparation lost.
        cuts: where the split is by time: the moments, in seconds of local time since 1970, up to which training and
            validation reach.
        sha256: of ``sequences.parquet``.
        mapper_sha256: of ``mapper.json``.
        mobtk: version that wrote it.
    """

    name: str
    step: str
    steps: int
    steps_per_day: int
    trait_sizes: dict[str, int]
    sources: list[str] = field(default_factory=list)
    licence: str = "not stated"
    settings: dict[str, Any] = field(default_factory=dict)
    split: dict[str, int] = field(default_factory=dict)
    funnel: list[Loss] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    sha256: str = ""
    mapper_sha256: str = ""
    mobtk: str = ""


class Dataset:
    """Sequences of cells with their traits and split, read from a folder.

    Args:
        path: the folder.

    Raises:
        BadInput: it is no dataset, or one of its files is damaged.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not (self.path / "dataset.toml").is_file():
            raise BadInput(f"{path} is not a dataset (it has no dataset.toml); make one with: mobtk data prepare")
        try:
            tree = tomllib.loads((self.path / "dataset.toml").read_text(encoding="utf-8"))
            if "kind" in tree:
                raise BadInput(
                    f"{path} holds {'a field' if tree['kind'] == 'field' else tree['kind']} and no sequences of cells"
                )
            self.info = msgspec.convert(tree, Info)
            self.mapper_spec: dict[str, Any] = json.loads((self.path / "mapper.json").read_text(encoding="utf-8"))
            table = pq.read_table(self.path / "sequences.parquet", memory_map=True)
            missing = {"cells", "user", "start", "split", *self.info.trait_sizes} - set(table.column_names)
            missing |= {"name", "config"} - set(self.mapper_spec)
            if missing:
                raise ValueError(f"{', '.join(sorted(missing))} is missing")
        except (OSError, ValueError, pa.ArrowException, msgspec.ValidationError) as error:
            raise BadInput(f"dataset {path} is damaged: {first_line(error)}; prepare it again") from None
        self._table = table.combine_chunks()

    @property
    def cells(self) -> NDArray[np.int32]:
        """``(rows, T)`` finest cell of each step."""
        return list_column(self._table, "cells")

    @property
    def users(self) -> NDArray[Any]:
        """``(rows,)`` whose sequence it is."""
        return self._table["user"].to_numpy()

    @property
    def starts(self) -> NDArray[np.datetime64]:
        """``(rows,)`` local time of the first step."""
        return self._table["start"].to_numpy()

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self):,} sequences of {self.info.steps} steps)"

    def to_arrow(self) -> pa.Table:
        """All rows, one a sequence, as the Arrow table that this dataset holds; nothing is copied."""
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """All rows as a table of pandas; ``cells`` stays Arrow's, so that nothing is copied into lists."""
        return self._table.to_pandas(types_mapper=pd.ArrowDtype)

    def tensor(self, name: str = "cells") -> Any:
        """A numeric column as a torch tensor that shares its memory: read it, do not write to it."""
        import torch

        column = self._table[name] if name in self._table.column_names else None
        lists = column is not None and pa.types.is_fixed_size_list(column.type)
        values = list_column(self._table, name) if lists else self.column(name)
        if values.dtype.kind not in "iufb":
            raise BadInput(f"column {name!r} of dataset {self.path} holds no numbers")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that torch cannot protect the memory is said above
            return torch.from_numpy(values)

    def to_geopandas(self, what: str = "points", level: int = 0) -> Any:
        """``points``, ``lines``, ``stays`` or ``od`` with their geometry: see :func:`mobtk.data.export.layer`."""
        from mobtk.data.export import layer

        return layer(self, what, level)

    def to_movingpandas(self) -> Any:
        """A ``TrajectoryCollection``, a trajectory a sequence."""
        from mobtk.data.export import collection

        return collection(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``dataset.toml``, which holds those of the other files: two datasets with one are the same."""
        return fingerprint(self.path / "dataset.toml")

    def moments(self) -> NDArray[np.int64]:
        """``(rows, T)`` seconds of local time since 1970 of each step."""
        if "moments" in self._table.column_names:
            return list_column(self._table, "moments")
        seconds = int(pd.Timedelta(self.info.step).total_seconds())
        return self.starts.astype("datetime64[s]").astype(np.int64)[:, None] + np.arange(self.info.steps) * seconds

    def __len__(self) -> int:
        return len(self._table)

    def column(self, name: str) -> NDArray[Any]:
        """Any other column of ``sequences.parquet``, such as the planted truth of the built-in city."""
        if name not in self._table.column_names:
            raise BadInput(f"dataset {self.path} has no column {name!r}; it has {', '.join(self._table.column_names)}")
        return self._table[name].to_numpy()

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split: ``train``, ``valid`` or ``test``."""
        if split not in SPLITS:
            raise BadInput(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        return np.flatnonzero(self._table["split"].to_numpy(zero_copy_only=False) == split)

    def traits(self, names: Sequence[str]) -> NDArray[np.int64]:
        """``(rows, len(names))`` values of traits."""
        for name in names:
            if name not in self.info.trait_sizes:
                raise BadInput(
                    f"dataset {self.path} has no trait {name!r}; it has {', '.join(self.info.trait_sizes) or 'none'}"
                )
        columns = [self._table[name].to_numpy().astype(np.int64) for name in names]
        return np.column_stack(columns) if columns else np.zeros((len(self), 0), np.int64)

    def mapper(self) -> SpatialMapper:
        """The spatial mapper its cells belong to."""
        mapper: SpatialMapper = registry().find("mapper", self.mapper_spec["name"]).load()(**self.mapper_spec["config"])
        return mapper

    @classmethod
    def write(
        cls,
        path: PathLike,
        info: Info,
        mapper: tuple[str, SpatialMapper],
        tables: Iterable[pa.Table],
        *,
        replace: bool = False,
        inputs: Iterable[PathLike] = (),
    ) -> Self:
        """Write a dataset folder, whole or not at all.

        Args:
            path: the folder, which must not exist unless ``replace``.
            info: what goes into ``dataset.toml``; its split and hashes are filled in.
            mapper: full name and instance.
            tables: the rows, some at a time, with columns ``user``, ``start``, ``split``, the traits, ``cells`` (lists of a
                fixed size) and whatever else is worth keeping.
            replace: replace an existing folder.
            inputs: files it was made from, which must not lie in a folder that is replaced.
        """
        info.split, info.mobtk = dict.fromkeys(SPLITS, 0), __version__
        with new_folder(path, replace=replace, inputs=inputs) as folder:
            sink = None
            try:
                for table in _in_groups(tables):
                    if sink is None:
                        sink = pq.ParquetWriter(folder / "sequences.parquet", table.schema, compression="zstd")
                    sink.write_table(table)
                    for split in SPLITS:
                        info.split[split] += pc.sum(pc.equal(table["split"], split)).as_py() or 0
            finally:
                if sink is not None:
                    sink.close()
            write_text(folder / "mapper.json", json.dumps({"name": mapper[0], "config": mapper[1].config()}))
            info.sha256 = fingerprint(folder / "sequences.parquet")
            info.mapper_sha256 = fingerprint(folder / "mapper.json")
            write_text(folder / "dataset.toml", tomli_w.dumps(msgspec.to_builtins(info)))
        return cls(path)


ROW_GROUP = 65_536
"""Rows that are written together."""


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of :data:`ROW_GROUP`, so that a file does not show in which parts its rows came."""
    waiting: pa.Table | None = None
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        while len(waiting) >= ROW_GROUP:
            yield waiting.slice(0, ROW_GROUP).combine_chunks()
            waiting = waiting.slice(ROW_GROUP)
    if waiting is not None and len(waiting):
        yield waiting.combine_chunks()


def fixed_list(cells: NDArray[np.int64]) -> pa.FixedSizeListArray:
    """``(rows, T)`` as an Arrow column of lists of fixed size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(cells.astype(np.int32).ravel()), cells.shape[1])


def list_column(table: pa.Table, name: str) -> NDArray[Any]:
    """An Arrow column of lists of one size as ``(rows, T)``."""
    chunks = table[name].chunks
    column = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], table[name].type)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1) if len(column) else values.reshape(0, 0)
