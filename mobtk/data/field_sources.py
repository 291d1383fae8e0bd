"""What a source of a field holds: an array, a table in wide or long form, or people in cells, before steps are checked."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.data.dataset import Dataset
from mobtk.errors import BadInput, first_line

FLOWS = ("count", "inflow", "outflow")
"""Channels of a field of people: how many are in a cell, have come since the step before, have left since then."""


class Raw(Struct):
    """What a file held, before steps are checked.

    Args:
        values: ``(T, N, C)`` float32.
        channels: their names.
        nodes: ``name`` and, where known, ``lat`` and ``lon``.
        times: local time of each step, where the file says.
        arrays: other arrays of the file, among which there may be a graph.
        step: where the file says so without times.
        start: the same.
        selects: whether channels are still to be chosen.
    """

    values: Any
    channels: tuple[str, ...]
    nodes: Any
    times: Any = None
    arrays: dict[str, Any] = {}
    step: str | None = None
    start: str | None = None
    selects: bool = True


def read_raw(
    path: Path,
    *,
    key: str | None = None,
    time: str | None = None,
    node: str | None = None,
    value: tuple[str, ...] = (),
    level: int = 0,
) -> Raw:
    """What a file or a dataset of sequences holds: see :func:`mobtk.data.prepare_field.make_field`."""
    if path.is_dir():
        return _of_people(Dataset(path), level)
    if not path.is_file():
        raise BadInput(f"{path} is not there")
    kinds = {".npz": _npz, ".npy": _npy, ".h5": _hdf5, ".hdf5": _hdf5}
    try:
        if path.suffix in kinds:
            return kinds[path.suffix](path, key)
        if path.suffix in (".csv", ".gz", ".parquet"):
            return _table(path, time, node, value)
    except (OSError, ValueError, EOFError, BadZipFile, pa.ArrowException) as error:
        raise BadInput(f"{path} cannot be read: {first_line(error)}") from None
    raise BadInput(f"{path} is no .npz, .npy, .h5, .csv or .parquet file, and no dataset")


def _npz(path: Path, key: str | None) -> Raw:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return _of_arrays(path, arrays, key)


def _npy(path: Path, key: str | None) -> Raw:
    return _of_arrays(path, {"values": np.load(path, mmap_mode="r", allow_pickle=False)}, key)


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]], key: str | None) -> Raw:
    """The array that is asked for, or the only one that has steps and nodes: the graphs of it are square."""
    numbers = {n: a for n, a in arrays.items() if a.dtype.kind in "iuf" and a.ndim in (2, 3)}
    fields = {n: a for n, a in numbers.items() if a.ndim == 3 or a.shape[0] != a.shape[1]}
    if key is None and len(fields) == 1:
        key = next(iter(fields))
    if key not in numbers:
        have = ", ".join(f"{n} {a.shape}" for n, a in arrays.items())
        raise BadInput(f"{path} has no {'single ' if key is None else ''}array {key or 'of steps x nodes'}; it has {have}; "
                       "name one with --key")  # fmt: skip
    values = numbers[key] if numbers[key].ndim == 3 else numbers[key][..., None]
    n, c = values.shape[1:]
    channels = (key,) if c == 1 else tuple(f"{key}{i}" for i in range(c))

    def of_nodes(*names: str) -> NDArray[Any] | None:
        return next((arrays[name] for name in names if name in arrays and arrays[name].shape == (n,)), None)

    labels = of_nodes("name", "names", "sensor_id", "node", "station", "stations", "id")
    nodes = pd.DataFrame({"name": [str(x) for x in (np.arange(n) if labels is None else labels)]})
    lat, lon = of_nodes("lat", "latitude"), of_nodes("lon", "lng", "longitude")
    if lat is not None and lon is not None:
        nodes["lat"], nodes["lon"] = lat.astype(float), lon.astype(float)
    said = {name: str(arrays[name]) for name in ("start", "freq", "step") if name in arrays and arrays[name].ndim == 0}
    return Raw(values, channels, nodes, None, arrays, said.get("freq", said.get("step")), said.get("start"))


def _hdf5(path: Path, key: str | None) -> Raw:
    """A table as pandas stores it in its fixed format (METR-LA, PEMS-BAY), or a plain array."""
    try:
        import h5py
    except ImportError:
        raise BadInput(f"{path} wants a package that reads HDF5: pip install h5py") from None
    with h5py.File(path) as file:
        groups = [name for name in file if "block0_values" in getattr(file[name], "keys", list)()]
        if key is None and len(groups) == 1:
            key = groups[0]
        if key is not None and key in groups:
            table = file[key]
            if "block1_values" in table:
                raise BadInput(f"{path}: table {key!r} has columns of several types; export it as Parquet first")
            nodes, moments, values = (table[name][()] for name in ("axis0", "axis1", "block0_values"))
            labels = [x.decode() if isinstance(x, bytes) else str(x) for x in nodes]
            kind = table["axis1"].attrs.get("kind", b"datetime64")
            kind = kind.decode() if isinstance(kind, bytes) else str(kind)
            if not kind.startswith("datetime64"):
                raise BadInput(f"{path}: the rows of table {key!r} are of {kind} and no moments")
            unit = kind.partition("[")[2].rstrip("]") or "ns"
            times = pd.DatetimeIndex(moments.astype(f"datetime64[{unit}]"))
            return Raw(values[..., None], (key,), pd.DataFrame({"name": labels}), times)
        arrays = {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}
    return _of_arrays(path, arrays, key)


def _table(path: Path, time: str | None, node: str | None, value: tuple[str, ...]) -> Raw:
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if time is None and isinstance(table.index, pd.DatetimeIndex):
        table = table.rename_axis("time").reset_index()
    names = [time] if time else [n for n in table.columns if str(n).lower() in ("time", "date", "datetime", "timestamp")]
    for wanted in [*names, *([node] if node else []), *value]:
        if wanted not in table.columns:
            raise BadInput(f"{path} has no column {wanted!r}; it has {', '.join(map(str, table.columns[:12]))}")
    if len(names) != 1:
        raise BadInput(f"{path} has no single column of moments; name it with --time")
    at = names[0]
    if pd.api.types.is_numeric_dtype(table[at]):
        raise BadInput(f"{path}: column {at!r} holds numbers and no moments; write them as 2024-01-31 08:00")
    try:
        moments = pd.to_datetime(table[at])
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: column {at!r} holds no moments: {first_line(error)}") from None
    if moments.isna().any():
        raise BadInput(f"{path}: column {at!r} is empty in row {int(moments.isna().argmax()) + 1}")
    if moments.dt.tz is not None:
        moments = moments.dt.tz_localize(None)
    apart = {at, node, *({"lat", "lon"} if node else ())}
    numbers = [
        n for n in table.columns
        if n not in apart and not str(n).startswith("Unnamed: ") and pd.api.types.is_numeric_dtype(table[n])
    ]  # fmt: skip
    columns = list(value) or numbers
    if not columns:
        raise BadInput(f"{path} has no column of numbers beside {at!r}")
    if node is None:
        order = moments.argsort(kind="stable")
        values = table[columns].to_numpy(np.float32)[order]
        return Raw(values[..., None], ("value",), pd.DataFrame({"name": [str(c) for c in columns]}),
                   pd.DatetimeIndex(moments.iloc[order]), selects=False)  # fmt: skip
    twice = pd.DataFrame({"t": moments, "n": table[node]}).duplicated()
    if twice.any():
        row = int(twice.argmax())
        raise BadInput(f"{path} has two rows for node {table[node].iloc[row]!r} at {moments.iloc[row]}; keep one of them")
    wide = [table.assign(**{at: moments}).pivot(index=at, columns=node, values=c) for c in columns]
    values = np.stack([w.to_numpy(np.float32) for w in wide], -1)
    nodes = pd.DataFrame({"name": wide[0].columns.astype(str)})
    if {"lat", "lon"} <= set(table.columns):
        first = table.groupby(node)[["lat", "lon"]].first()
        nodes["lat"], nodes["lon"] = first["lat"].to_numpy(), first["lon"].to_numpy()
    return Raw(values, tuple(map(str, columns)), nodes, pd.DatetimeIndex(wide[0].index), selects=False)


def _of_people(dataset: Dataset, level: int) -> Raw:
    """How many people of a dataset are in each cell at each step, and how many came and left since the step before.

    Who moves between two sequences is not seen to move.
    """
    if dataset.info.step == "event":
        raise BadInput(f"dataset {dataset.path} has events and no steps; prepare it with --step 1h for a field")
    mapper = dataset.mapper()
    if not 0 <= level < len(mapper.n_cells):
        raise BadInput(f"the cells of {dataset.path} have levels 0 to {len(mapper.n_cells) - 1}, not {level}")
    seconds = int(pd.Timedelta(dataset.info.step).total_seconds())
    step = dataset.moments() // seconds
    first = int(step.min())
    cells = mapper.coarsen(dataset.cells.astype(np.int64), level)
    counts = np.zeros((int(step.max()) - first + 1, mapper.n_cells[level], len(FLOWS)), np.float32)
    at, moved = step - first, cells[:, 1:] != cells[:, :-1]
    for channel, t, cell in (
        (0, at, cells),
        (1, at[:, 1:][moved], cells[:, 1:][moved]),
        (2, at[:, 1:][moved], cells[:, :-1][moved]),
    ):
        np.add.at(counts[..., channel], (t, cell), 1)
    counts[~np.isin(np.arange(len(counts)), at)] = np.nan  # hours of which there is no sequence
    visited = np.unique(cells)
    lat, lon = mapper.decode(visited, level)
    nodes = pd.DataFrame({"name": [f"cell {i}" for i in visited], "lat": lat, "lon": lon})
    times = pd.to_datetime((first + np.arange(len(counts))) * seconds, unit="s")
    return Raw(counts[:, visited], FLOWS, nodes, times)
