"""Making fields: of arrays, of tables in wide and long form, and of sequences of cells.

Every step is a moment apart from the one before it, or the field is refused; what is missing is NaN, and whatever a
preparation did to the values is a note of the field.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mobtk.data.field import Field, FieldInfo, cut
from mobtk.data.field_sources import Raw, read_raw
from mobtk.data.graph import make_edges
from mobtk.errors import BadInput, first_line
from mobtk.storage import PathLike, check_replaceable

log = logging.getLogger("mobtk")


def make_field(
    source: PathLike,
    out: PathLike,
    *,
    key: str | None = None,
    time: str | None = None,
    node: str | None = None,
    value: Sequence[str] = (),
    start: str | None = None,
    step: str | None = None,
    resample: str | None = None,
    missing: Sequence[float] = (),
    positions: PathLike | None = None,
    graph: str = "none",
    edges: str | None = None,
    neighbours: int = 8,
    reach: float | None = None,
    most: int | None = None,
    level: int = 0,
    shares: Sequence[float] = (0.6, 0.2, 0.2),
    cuts: Sequence[int] | None = None,
    name: str | None = None,
    licence: str = "not stated",
    replace: bool = False,
) -> Field:
    """Make a field of a file or of a dataset of sequences. ``mobtk data field`` does the same.

    Args:
        source: ``.npz``, ``.npy``, ``.h5``, ``.csv`` or ``.parquet``; or the folder of a dataset.
        out: folder of the field.
        key: name of the array in an ``.npz`` or ``.h5``.
        time: column of moments of a table.
        node: column that says which node a row is of, in the long form; without one the form is wide: a column a node.
        value: columns of values, or channels of an array (``data0``, ``data1``, ... of an array ``data``); all by default.
        start: local time of the first step, for arrays without times.
        step: duration of a step, for arrays without times.
        resample: steps of this duration instead, means of what was measured in them.
        missing: numbers that mean that nothing was measured.
        positions: table of ``name, lat, lon`` of the nodes.
        graph: ``none``, ``given``, ``distance`` or ``nearest``: see :func:`mobtk.data.graph.make_edges`.
        edges: of a given graph: the name of an array of the source, or a file.
        neighbours: of each node, for ``nearest``.
        reach: metres up to which nodes are linked, for ``distance``.
        most: keep so many nodes only, those with the largest mean.
        level: of the cells of a dataset.
        shares: of training, validation and test, in time.
        cuts: the steps at which they end instead.
        name, licence: for the record.
        replace: replace an existing folder.

    Raises:
        BadInput: with a sentence that says what is wrong with the source.
    """
    check_replaceable(out, replace, [source])
    path = Path(source)
    notes: list[str] = []
    raw = read_raw(path, key=key, time=time, node=node, value=tuple(value), level=level)
    values = np.asarray(raw.values, np.float32)
    raw.channels, values = _chosen(raw, values, tuple(value), path)
    for number in missing:
        values = np.where(values == np.float32(number), np.float32(np.nan), values)
    if values.size and any(np.isinf(end.reduce(values, axis=None)) for end in (np.fmin, np.fmax)):
        raise BadInput(f"{source} holds infinite values; say which numbers mean that nothing was measured, with --missing")
    if raw.times is None and not (start or raw.start):
        notes.append("the source does not say when it begins: 2001-01-01 is taken, a Monday; say so with --start")
    times = _times(raw, start, step, len(values), path)
    values, times, duration = _regular(values, times, resample, notes, path)
    nodes = _positions(raw.nodes, positions)
    if {"lat", "lon"} <= set(nodes.columns):
        nodes = _checked(nodes, positions or path)
    if most is not None and most < values.shape[1]:
        mean = np.nansum(np.abs(values[..., 0]), 0) / np.maximum((~np.isnan(values[..., 0])).sum(0), 1)
        keep = np.sort(np.argsort(-mean, kind="stable")[:most])
        notes.append(f"{most:,} of {values.shape[1]:,} nodes are kept, those with the largest mean")
        values, nodes = values[:, keep], nodes.iloc[keep].reset_index(drop=True)
        raw.arrays = {k: a[np.ix_(keep, keep)] if a.shape == (len(mean),) * 2 else a for k, a in raw.arrays.items()}
    notes += faults(values, nodes["name"].astype(str).tolist())
    made = make_edges(graph, nodes, given=edges, arrays=raw.arrays, neighbours=neighbours, reach=reach)
    settings = {
        "key": key, "time": time, "node": node, "value": list(value), "missing": list(missing), "resample": resample,
        "graph": graph, "edges": edges, "neighbours": neighbours, "reach": reach, "most": most, "level": level,
        "start": start, "step": step, "positions": None if positions is None else str(positions), "shares": list(shares),
        "cuts": None if cuts is None else list(cuts),
    }  # fmt: skip
    info = FieldInfo(
        name=name or path.stem,
        step=duration,
        start=str(times[0].isoformat()),
        shape=values.shape,
        channels=raw.channels,
        cuts=cut(len(values), shares, cuts),
        sources=[str(source)],
        licence=licence,
        settings={k: v for k, v in settings.items() if v not in (None, [])},
        notes=notes,
    )
    for note in notes:
        log.info("%s", note)
    return Field.write(out, info, values, nodes, made, replace=replace, inputs=[source])


def faults(values: NDArray[np.float32], names: Sequence[str]) -> list[str]:
    """What is odd about values, a sentence each: nodes that never change, or where nothing was ever measured."""
    found = []
    low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)  # which pass over NaN
    empty = np.isnan(low).all(-1)
    still = (low == high).all(-1) & ~empty
    for which, what in ((empty, "was never measured: it is not scored"), (still, "never changes: its errors say nothing")):
        if which.any():
            some = ", ".join(repr(names[i]) for i in np.flatnonzero(which)[:3])
            count = int(which.sum())
            found.append(f"node {some} {what}" if count == 1 else f"{count} nodes such as {some}: each {what}")
    return found


def _chosen(
    raw: Raw, values: NDArray[np.float32], wanted: tuple[str, ...], path: Path
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The channels that are asked for, of an array or of people; a table has chosen already."""
    if not wanted or not raw.selects:
        return raw.channels, values
    if unknown := [name for name in wanted if name not in raw.channels]:
        raise BadInput(f"{path} has no channel {unknown[0]!r}; it has {', '.join(raw.channels)}")
    return wanted, values[..., [raw.channels.index(name) for name in wanted]]


# --------------------------------------------------------------------------------------------------------- steps


def _times(raw: Raw, start: str | None, step: str | None, steps: int, path: Path) -> pd.DatetimeIndex:
    """The local time of each step."""
    if raw.times is not None:
        if start or step:
            raise BadInput(f"{path} says when its steps are; leave --start and --step out, or change them with --resample")
        return pd.DatetimeIndex(raw.times)
    start, step = start or raw.start, step or raw.step
    if step is None:
        raise BadInput(f"{path} does not say how long a step is; say so with --step, such as --step 5min")
    try:
        if pd.Timedelta(pd.tseries.frequencies.to_offset(step)) <= pd.Timedelta(0):
            raise ValueError("a step is longer than nothing")
        return pd.date_range(pd.Timestamp(start or "2001-01-01").tz_localize(None), periods=steps, freq=step)
    except (ValueError, TypeError) as error:
        raise BadInput(f"--start {start} and --step {step} make no steps: {first_line(error)}") from None


def _regular(
    values: NDArray[np.float32], times: pd.DatetimeIndex, resample: str | None, notes: list[str], path: Path
) -> tuple[NDArray[np.float32], pd.DatetimeIndex, str]:
    """Values at steps that are equally far apart; steps that were left out are missing."""
    if len(times) < 3:
        raise BadInput(f"{path} has {len(times)} steps; a field wants three at least")
    if not times.is_monotonic_increasing:
        order = np.argsort(times, kind="stable")
        values, times = values[order], times[order]
        notes.append("steps were not in the order of time and are now")
    if (twice := times.duplicated()).any():
        raise BadInput(f"{path} has several rows for {times[twice][0]}; keep one a moment, or name the --node column")
    if resample is not None:
        values, times = _resampled(values, times, resample)
        notes.append(f"values are means over steps of {resample}")
    apart = np.diff(times.to_numpy()).astype("timedelta64[ns]").astype(np.int64)
    if (apart % 1_000_000_000).any():
        raise BadInput(f"the steps of {path} are no whole seconds apart; make them so with --resample 1min, say")
    gaps = apart // 1_000_000_000
    lengths, counts = np.unique(gaps, return_counts=True)
    usual = int(lengths[counts.argmax()])
    if (gaps % usual).any() or usual == 0:
        odd = int(np.flatnonzero(gaps % usual if usual else gaps == 0)[0])
        late = gaps[-max(1, len(gaps) // 4) :]
        changed = len(np.unique(late)) == 1 and late[0] != gaps[0]
        what = f"are {_duration(gaps[0])} apart at first and {_duration(late[-1])} later" if changed else "are uneven"
        raise BadInput(
            f"the steps of {path} {what}: {times[odd]} is followed by {times[odd + 1]}; make them even with --resample "
            f"{_duration(max(usual, int(lengths.max())) if changed else usual)}"
        )
    if len(lengths) > 1:
        at = np.concatenate([[0], np.cumsum(gaps // usual)])
        left_out = int(at[-1]) + 1 - len(at)
        longest = gaps.argmax()
        changed = counts.max() < 0.9 * counts.sum()
        if changed or left_out > len(at):
            raise BadInput(
                f"the steps of {path} change: {_duration(int(lengths[0]))} and {_duration(int(lengths[-1]))} apart, such as "
                f"{times[longest]} and {times[longest + 1]}; make them even with --resample {_duration(int(lengths[-1]))}"
            )
        whole = np.full((int(at[-1]) + 1, *values.shape[1:]), np.nan, np.float32)
        whole[at] = values
        notes.append(f"{left_out:,} steps that were left out, such as after {times[longest]}, are missing values now")
        values, times = whole, pd.date_range(times[0], periods=len(whole), freq=pd.Timedelta(seconds=usual))
    return values, times, _duration(usual)


def _resampled(
    values: NDArray[np.float32], times: pd.DatetimeIndex, step: str
) -> tuple[NDArray[np.float32], pd.DatetimeIndex]:
    try:
        table = pd.DataFrame(values.reshape(len(values), -1), index=times).resample(step).mean()
    except (ValueError, ZeroDivisionError) as error:
        raise BadInput(f"--resample {step} is no duration: {first_line(error)}; try 15min") from None
    return table.to_numpy(np.float32).reshape(len(table), *values.shape[1:]), pd.DatetimeIndex(table.index)


def _duration(seconds: int) -> str:
    for size, unit in ((86_400, "D"), (3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _checked(nodes: pd.DataFrame, origin: PathLike) -> pd.DataFrame:
    """Nodes whose positions are degrees."""
    for column, most in (("lat", 90), ("lon", 180)):
        degrees = pd.to_numeric(nodes[column], errors="coerce")
        wrong = nodes[column].notna() & ~(degrees.abs() <= most)
        if wrong.any():
            row = int(wrong.argmax())
            raise BadInput(f"{origin}: node {nodes['name'][row]!r} has {column} {nodes[column][row]}, which is no degree")
        nodes = nodes.assign(**{column: degrees})
    return nodes


def _positions(nodes: pd.DataFrame, file: PathLike | None) -> pd.DataFrame:
    """Nodes with the positions of a table that names them."""
    if file is None:
        return nodes
    try:
        table = pd.read_parquet(file) if str(file).endswith(".parquet") else pd.read_csv(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInput(f"{file} cannot be read: {first_line(error)}") from None
    names = [c for c in table.columns if c in ("name", "node", "sensor_id", "id")]
    if not names or not {"lat", "lon"} <= set(table.columns):
        raise BadInput(f"{file} wants columns name, lat and lon; it has {', '.join(map(str, table.columns))}")
    at = table.assign(key=table[names[0]].astype(str)).drop_duplicates("key").set_index("key")
    if missing := [n for n in nodes["name"] if n not in at.index]:
        raise BadInput(f"{file} has no position of node {missing[0]!r}")
    return nodes.assign(lat=at.loc[nodes["name"], "lat"].to_numpy(), lon=at.loc[nodes["name"], "lon"].to_numpy())
