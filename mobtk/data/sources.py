"""Files of points of any form: the pieces they are read in, and the points in a piece.

A piece is small enough for memory and is read by itself, here or in another process; the same files give the same pieces.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pyproj
from numpy.typing import NDArray

from mobtk.data.formats import (
    COMPONENTS,
    FORMATS,
    GEO,
    HEAD,
    LATS,
    LONS,
    PARQUET,
    PLANE,
    TEXT,
    TIMES,
    USERS,
    Reading,
    Span,
    find_files,
    find_format,
    first_bytes,
    is_numeric,
    is_utf16,
    kind_of,
    some_names,
    unreadable,
)
from mobtk.data.moments import moments, origin_us, unit_of
from mobtk.data.points import MISSING, Points, concat
from mobtk.data.text import BLOCK, SPLITTABLE, parse_text, text_blocks, text_layout, wanted_columns
from mobtk.errors import BadInput
from mobtk.storage import PathLike

ROWS = 1_000_000
"""Rows of a piece of Parquet, about."""


LONGEST_NAME = 1000
"""Characters that the name of a user may have."""
LARGEST_GZ = 64 << 20
"""Bytes of a compressed text that is read whole."""


Piece = tuple[Span, ...]


def begin(sources: PathLike | Sequence[PathLike], wish: Reading) -> tuple[list[Path], Reading]:
    """The files, and what their format says of how they are read; the wish goes before it.

    Raises:
        BadInput: there are no files, or no such format.
    """
    name = wish.format
    if name == "auto":  # who names the columns knows better than a guess by the first line
        name = find_format(sources) if wish.columns is None else "table"
    if name not in FORMATS:
        raise BadInput(f"format {name!r} is not one of auto, {', '.join(FORMATS)}")
    default = Reading()
    told = {f: v for f in Reading.__struct_fields__ if (v := getattr(wish, f)) != getattr(default, f) and f != "format"}
    reading = msgspec.structs.replace(Reading(format=name, **FORMATS[name].preset), **told)
    return find_files(sources, FORMATS[name].pattern), reading


def settle(sources: PathLike | Sequence[PathLike], wish: Reading) -> tuple[list[Path], Reading]:
    """The files, and how they are read: what the wish leaves open is found by the format, by name or by looking.

    Raises:
        BadInput: a column is missing, has no clear name, or its unit cannot be told.
    """
    files, reading = begin(sources, wish)
    name = reading.format
    if name != "table" and name != "gpx":
        return files, _who_is_who(files, reading)
    if reading.places is not None and reading.place is None:
        raise BadInput("--places wants --place too: the column that holds the id of a place in both tables")
    columns = column_names(files[0], reading)
    found: dict[str, str | None] = {}
    by_geometry = _has_geometry(files[0]) and reading.lat not in columns
    wanted: list[tuple[str, tuple[str, ...]]] = [("user", USERS), ("time", TIMES)]
    if reading.places is None and not by_geometry:
        wanted += [("lat", LATS), ("lon", LONS)]
    if reading.accuracy is not None:
        wanted.append(("accuracy", ()))
    if reading.place is not None:
        wanted.append(("place", ()))
    for role, usual in wanted:
        found[role] = _column(files[0], columns, role, getattr(reading, role), usual)
    if by_geometry:
        found["lat"] = found["lon"] = "geometry"
    reading = msgspec.structs.replace(reading, **found)
    if reading.time_unit is None and reading.time_format is None and name == "table":
        units = {
            _unit(sample(file, reading, 10_000 if file == files[0] else 100), reading): file for file in reversed(files)
        }
        if len(units) > 1:
            ways = " and ".join(f"{file} in {unit or 'words'}" for unit, file in units.items())
            raise BadInput(f"times are written in different ways, {ways}; say --time-unit, or prepare the files apart")
        reading = msgspec.structs.replace(reading, time_unit=next(iter(units)))
    return files, _who_is_who(files, reading)


def _who_is_who(files: Sequence[Path], reading: Reading) -> Reading:
    """Files that are called alike are different users: then their folder belongs to the name."""
    if reading.user != "@file" or len({f.stem for f in files}) == len(files):
        return reading
    if len({(f.parent.name, f.stem) for f in files}) < len(files):
        raise BadInput(
            "the name of the file says who, and several files in folders of one name are called alike; rename them"
        )
    return msgspec.structs.replace(reading, user="@path")


def _column(file: Path, columns: Sequence[str], role: str, told: str | None, usual: Sequence[str]) -> str | None:
    """The name of a column, as it is in the file."""
    if told is not None:
        if told.startswith("@") or told in columns or (told == "geometry" and role in ("lat", "lon")):
            return told
        missing = [part for part in told.split(",") if part not in columns]
        if not missing and role in ("user", "time"):
            return told
        raise BadInput(
            f"{file} has no column {missing[0]!r} for the {role}; it has {some_names(columns)}: name the right "
            f"one with --{role}"
        )
    lower = {c.lower().strip(): c for c in reversed(columns)}
    for name in usual:
        if name in lower:
            return lower[name]
    if role == "time" and {"year", "month", "day"} <= set(lower):
        return ",".join(lower[c] for c in COMPONENTS if c in lower)
    raise BadInput(
        f"{file} has no column {usual[0]!r} for the {role}, nor one of another usual name; it has "
        f"{some_names(columns)}: name the right one with --{role}, or try: mobtk data check {file}"
    )


def _unit(head: pa.Table, reading: Reading) -> str | None:
    """What numeric times count, where their size says so."""
    time = str(reading.time)
    if time not in head.column_names:
        return None
    column = head[time].drop_null()
    if is_numeric(column.type):
        values = column.to_numpy()
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = pd.to_numeric(column.to_pandas(), errors="coerce").dropna().to_numpy()
        if len(values) <= len(column) / 2:
            return None
    else:
        return None
    if not len(values):
        return None
    largest = float(np.nanmax(np.abs(values)))
    unit = unit_of(largest)
    if unit is not None and reading.time_origin is None:
        return unit
    raise BadInput(
        f"column {time!r} holds numbers up to {largest:g}: say what they count with --time-unit (ns, us, ms, s, min, h, "
        "D), and from when with --time-origin if not from 1970; or how they are written with --time-format"
    )


def column_names(file: Path, reading: Reading) -> list[str]:
    """Names of the columns of a file."""
    kind = kind_of(file)
    try:
        if kind in PARQUET:
            return list(pq.read_schema(file).names)
        if kind == ".npz":
            return _npz(file, 0, 1).column_names
        if kind in GEO:
            return list(_geo(file, reading, 1).columns)
        return text_layout(file, reading).names
    except BadInput:
        raise
    except Exception as error:
        raise unreadable(file, error) from None


def sample(file: Path, reading: Reading, rows: int) -> pa.Table:
    """The first rows of a file as they are."""
    kind = kind_of(file)
    try:
        if kind in PARQUET:
            batches = pq.ParquetFile(file).iter_batches(batch_size=rows)
            first = next(batches, None)
            return pq.read_schema(file).empty_table() if first is None else pa.Table.from_batches([first])
        if kind == ".npz":
            return _npz(file, 0, rows)
        if kind in GEO:
            frame = _geo(file, reading, rows)
            return pa.Table.from_pandas(pd.DataFrame(frame.drop(columns="geometry", errors="ignore")), preserve_index=False)
        text = text_layout(file, reading)
        head = first_bytes(file, max(HEAD, 400 * rows))
        whole = head if len(head) < max(HEAD, 400 * rows) else head[: head.rfind(b"\n") + 1]
        lines = whole.decode(text.encoding, "replace").splitlines(keepends=True)[text.skip : text.skip + rows]
        return parse_text("".join(lines).encode(), text, None, file, [])
    except BadInput:
        raise
    except Exception as error:
        raise unreadable(file, error) from None


def estimate_rows(files: Iterable[Path], reading: Reading) -> int:
    """How many rows there are, about: exact for Parquet, by the length of the first lines for text."""
    total, text_bytes, sampled, lines = 0, 0, 0, 0
    for file in files:
        kind = kind_of(file)
        if kind in PARQUET:
            try:
                total += pq.read_metadata(file).num_rows
            except Exception as error:
                raise unreadable(file, error) from None
        elif kind in GEO:
            total += file.stat().st_size // 60
        elif kind == ".npz":
            total += len(_npz(file, 0, None))
        else:
            text_bytes += file.stat().st_size * (6 if file.suffix == ".gz" else 1)
            if sampled < HEAD:
                head = first_bytes(file, 1 << 16)
                sampled += len(head)
                lines += head.count(b"\n") + 1
    if text_bytes:
        points = 50 if reading.format == "porto" else 1
        total += int(text_bytes * lines * points / max(1, sampled))
    return max(1, total)


def pieces(files: Sequence[Path], reading: Reading) -> list[Piece]:
    """The files in pieces. Small files share one."""
    found: list[Piece] = []
    together: list[Span] = []
    weight = 0.0

    def close() -> None:
        nonlocal weight
        if together:
            found.append(tuple(together))
            together.clear()
        weight = 0.0

    for file in files:
        size = file.stat().st_size
        for span, share in _spans(file, size, reading):
            if weight + share > 1:
                close()
            together.append(span)
            weight += share
    close()
    return found


def _spans(file: Path, size: int, reading: Reading) -> Iterator[tuple[Span, float]]:
    """Parts of a file, and how much of a piece each fills."""
    kind = kind_of(file)
    if kind in PARQUET:
        try:
            meta = pq.read_metadata(file)
        except Exception as error:
            raise unreadable(file, error) from None
        first, rows = 0, 0
        for group in range(meta.num_row_groups):
            rows += meta.row_group(group).num_rows
            if rows >= ROWS or group + 1 == meta.num_row_groups:
                yield Span(str(file), first, group + 1), rows / ROWS
                first, rows = group + 1, 0
    elif (
        kind in TEXT and file.suffix != ".gz" and (reading.encoding or "utf-8").lower() in SPLITTABLE and not is_utf16(file)
    ):
        for first in range(0, size, BLOCK):
            yield Span(str(file), first, min(size, first + BLOCK)), min(size - first, BLOCK) / BLOCK
    elif file.suffix == ".gz" and size > LARGEST_GZ:
        raise BadInput(f"{file} is compressed and too large to be read at once; unpack it first: gunzip -k {file}")
    else:
        yield Span(str(file)), size * (6 if file.suffix == ".gz" else 1) / BLOCK


def read_piece(piece: Piece, reading: Reading) -> tuple[Points, int]:
    """The points of a piece, and how many lines were no row.

    Raises:
        BadInput: a file is damaged or lacks a column.
    """
    parts, broken = [], [0]
    for span in piece:
        try:
            parts += list(_read_span(span, reading, broken))
        except BadInput:
            raise
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            raise unreadable(Path(span.file), error) from None
    return (parts[0] if len(parts) == 1 else concat(parts)), broken[0]


def _read_span(span: Span, reading: Reading, broken: list[int]) -> Iterator[Points]:
    file = Path(span.file)
    kind = kind_of(file)
    if kind in PARQUET:
        if reading.lat == "geometry":
            yield _points(_geoparquet(file, span), reading, file)
        else:
            yield _points(_parquet(file, span, reading), reading, file)
    elif kind in GEO:
        frame = _geo(file, reading, None)
        yield _points(pa.Table.from_pandas(_degrees(frame, file), preserve_index=False), reading, file)
    elif kind == ".npz":
        yield _points(_npz(file, 0, None), reading, file)
    else:
        text = text_layout(file, reading)
        for block in text_blocks(file, span, text):
            table = parse_text(block, text, reading, file, broken)
            if len(table):
                yield from _polylines(table, reading) if reading.format == "porto" else [_points(table, reading, file)]


def _points(table: pa.Table, reading: Reading, file: Path) -> Points:
    """Rows of a table as points."""
    user, names = _who(table, reading, file)
    if reading.format == "yjmob":
        day, slot = (_floats(table[c]) for c in ("d", "t"))
        steps = day * 48 + slot
        with np.errstate(invalid="ignore"):
            time = np.where(np.isfinite(steps), steps * 1_800_000_000 + origin_us(reading.time_origin), MISSING)
        time = np.where(np.isfinite(steps), time, MISSING).astype(np.int64)
    else:
        time = moments(_when(table, reading), reading.time_unit, reading.time_origin, reading.time_format, reading.naive)
    if reading.places is not None:
        lat, lon = _spots(table[str(reading.place)], reading)
    else:
        geometry = reading.lat == "geometry"
        lat, lon = (_floats(table[c]) for c in (("lat", "lon") if geometry else (str(reading.lat), str(reading.lon))))
        if reading.format == "yjmob":
            lat, lon = lat - 0.5, lon - 0.5
        if reading.scale != 1.0:
            lat, lon = lat * reading.scale, lon * reading.scale
        if reading.crs is not None and str(reading.lat) != "geometry":
            lon, lat = transformer(reading.crs).transform(lon, lat)
    accuracy = None if reading.accuracy is None else _floats(table[reading.accuracy])
    return Points(names, user, time, lat, lon, accuracy)


@lru_cache(maxsize=8)
def transformer(crs: str) -> pyproj.Transformer:
    """From a coordinate system to WGS84 degrees.

    Raises:
        BadInput: there is no such coordinate system.
    """
    try:
        return pyproj.Transformer.from_crs(PLANE if crs == "metres" else crs, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.CRSError:
        raise BadInput(f"--crs {crs!r} is no coordinate system; give one such as EPSG:25832, or metres") from None


def _who(table: pa.Table, reading: Reading, file: Path) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """Index of each row's user, and the names."""
    told = str(reading.user)
    if told.startswith("@"):
        whole = f"{file.parent.name}/{file.stem}"
        folders = {"@folder": file.parent.name, "@geolife": file.parent.parent.name}
        name = {"@file": file.stem, "@path": whole, **folders}.get(told)
        if name is None:
            raise BadInput(f"--user {told!r} is not one of @file, @folder, or a column")
        return np.zeros(len(table), np.int32), np.array([name], object)
    if told in table.column_names:
        column = table[told].combine_chunks()
    else:
        parts = [pc.cast(table[c], pa.string()) for c in told.split(",")]
        escaped = [pc.replace_substring(pc.replace_substring(p, "\\", "\\\\"), "-", "\\-") for p in parts]
        column = pc.binary_join_element_wise(*escaped, "-")  # (1-2, 3) and (1, 2-3) are two people
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_floating(column.type) and not len(pc.filter(column, pc.not_equal(column, pc.floor(column)))):
        column = column.cast(pa.int64(), safe=False)  # whole numbers that a gap made floats
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    user = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    words = pc.cast(column.dictionary, pa.string()) if len(column.dictionary) else pa.array([], pa.string())
    names = words.to_numpy(zero_copy_only=False).astype(object)
    gone = np.array([n is None or n == "" for n in names], bool)
    longest = max((len(n) for n in names if n), default=0)
    if longest > LONGEST_NAME:
        raise BadInput(
            f"column {told!r} of {file} holds a name of {longest:,} characters; is it the right column for --user?"
        )
    if gone.any():
        user[gone[user] & (user >= 0)] = -1
    used = np.bincount(user + 1, minlength=len(names) + 1)[1:] > 0
    if not used.all():  # a category without rows is no user
        code = np.cumsum(used, dtype=np.int32) - 1
        user, names = np.where(user >= 0, code[user], np.int32(-1)), names[used]
    return user, names


def _when(table: pa.Table, reading: Reading) -> pa.ChunkedArray | pa.Array:
    """The column of times, made of several where it must be."""
    told = str(reading.time)
    if told in table.column_names:
        return table[told]
    parts = told.split(",")
    if parts == ["day", "clock"]:
        return pc.binary_join_element_wise(*(pc.cast(table[c], pa.string()) for c in parts), "T")
    words = {p.lower(): p for p in parts}
    if set(words) <= set(COMPONENTS) and {"year", "month", "day"} <= set(words):
        frame = pd.DataFrame({ours: _floats(table[theirs]) for ours, theirs in words.items()})
        return pa.array(pd.to_datetime(frame, errors="coerce"))
    day, *rest = (pc.cast(table[c], pa.string()) for c in parts)
    if len(rest) == 1 and pa.types.is_integer(table[parts[1]].type):  # an hour
        rest = [pc.binary_join_element_wise(pc.utf8_lpad(rest[0], 2, "0"), "00", ":")]
    return pc.binary_join_element_wise(day, *rest, " ")


def _floats(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Numbers; NaN where there is none, or something that is none."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if is_numeric(column.type):
        return np.asarray(column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False), np.float64)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(column.type):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    return pd.to_numeric(column.to_pandas().astype(str), errors="coerce").to_numpy(np.float64)


@lru_cache(maxsize=2)
def _spot_table(reading: Reading, changed: int) -> pd.DataFrame:
    """Positions of the places, by id, as the table was when it last changed."""
    file = Path(str(reading.places))
    own = Reading(separator=reading.separator, decimal=reading.decimal, encoding=reading.encoding)
    columns = column_names(file, own)
    lat = _column(file, columns, "lat", reading.lat if reading.lat in columns else None, LATS)
    lon = _column(file, columns, "lon", reading.lon if reading.lon in columns else None, LONS)
    _column(file, columns, "place", reading.place, ())
    table = sample(file, own, 50_000_000)
    spots = pd.DataFrame({"lat": _floats(table[lat]), "lon": _floats(table[lon])}, index=_ids(table[str(reading.place)]))
    if spots.index.duplicated().any():
        raise BadInput(f"{file}: column {reading.place!r} has an id twice; each place wants one position")
    return spots


def _spots(ids: pa.ChunkedArray, reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    file = Path(str(reading.places))
    if not file.is_file():
        raise BadInput(f"{file} is not a file; --places wants a table of ids and positions")
    found = _spot_table(reading, file.stat().st_mtime_ns).reindex(_ids(ids))
    return found["lat"].to_numpy() * reading.scale, found["lon"].to_numpy() * reading.scale


def _ids(column: pa.ChunkedArray) -> pd.Index:
    return pd.Index(pc.cast(column, pa.string()).to_pandas())


def _parquet(file: Path, span: Span, reading: Reading) -> pa.Table:
    """Wanted columns of some row groups."""
    source = pq.ParquetFile(file, read_dictionary=[str(reading.user)])
    columns = wanted_columns(reading, source.schema_arrow.names, file)
    last = source.num_row_groups if span.last < 0 else span.last
    if not source.metadata.num_rows:
        raise BadInput(f"{file} has a header but no rows")
    return source.read_row_groups(list(range(span.first, last)), columns=columns, use_threads=False)


def _has_geometry(file: Path) -> bool:
    kind = kind_of(file)
    if kind in PARQUET:
        try:
            return b"geo" in (pq.read_schema(file).metadata or {})
        except Exception as error:
            raise unreadable(file, error) from None
    return kind in GEO


def _geoparquet(file: Path, span: Span) -> pa.Table:
    import geopandas

    frame = geopandas.io.arrow._arrow_to_geopandas(pq.ParquetFile(file).read_row_groups(
        list(range(span.first, span.last)), use_threads=False
    ))  # fmt: skip
    return pa.Table.from_pandas(_degrees(frame, file), preserve_index=False)


def _geo(file: Path, reading: Reading, rows: int | None) -> Any:
    """A file of points that GDAL reads."""
    import geopandas

    layer = {"layer": "track_points"} if kind_of(file) == ".gpx" else {}
    frame = geopandas.read_file(file, engine="pyogrio", max_features=rows, **layer)
    if "geometry" not in frame or not hasattr(frame, "geometry"):
        raise BadInput(f"{file} holds no positions")
    return frame


def _degrees(frame: Any, file: Path) -> pd.DataFrame:
    """A table of points with columns lat and lon in the place of their geometry."""
    shapes = frame.geometry
    kinds = set(shapes.geom_type.dropna())
    if kinds - {"Point"}:
        raise BadInput(f"{file} holds {', '.join(sorted(kinds))}; mobtk prepares points, one a row")
    shapes = shapes.to_crs(4326) if frame.crs else shapes
    plain = pd.DataFrame(frame.drop(columns=[shapes.name, "lat", "lon"], errors="ignore"))
    return plain.assign(lat=shapes.y, lon=shapes.x)


def _polylines(table: pa.Table, reading: Reading) -> Iterator[Points]:
    """Trips of a row with their positions every 15 s, as points."""
    lines = [msgspec.json.decode(line or "[]", type=list[tuple[float, float]]) for line in table["POLYLINE"].to_pylist()]
    lengths = np.array([len(line) for line in lines], np.int64)
    user, names = _who(table, reading, Path())
    start = moments(table["TIMESTAMP"], "s", None, None, "UTC")
    xy = np.array([p for line in lines for p in line], np.float64).reshape(-1, 2)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    time = np.repeat(start, lengths)
    time = np.where(time > MISSING + 1, time + within * 15_000_000, time)
    yield Points(names, np.repeat(user, lengths), time, xy[:, 1].copy(), xy[:, 0].copy())


def _npz(file: Path, first: int, rows: int | None) -> pa.Table:
    """Arrays of a numpy archive as a table.

    Arrays of one shape ``(rows, steps)`` become columns, with the columns ``row`` and ``step``; a last axis of two becomes
    ``NAME_0`` and ``NAME_1``. One array ``lengths`` says how long each row of ``(sum, 2)`` points is.
    """
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as array:
                version = np.lib.format.read_magic(array)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                claimed, _, kind = read(array)
                if math.prod(claimed) * kind.itemsize > member.file_size or member.file_size > 4 << 30:
                    raise ValueError(f"array {member.filename} says it has the shape {claimed}")
    shape: tuple[int, ...]
    arrays = dict(np.load(file, allow_pickle=False))
    if "lengths" in arrays:
        lengths = arrays.pop("lengths").astype(np.int64)
        total = int(lengths.sum())
        arrays = {k: v for k, v in arrays.items() if len(v) == total}
        shape = (total,)
        row = np.repeat(np.arange(len(lengths)), lengths)
        step = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    else:
        flat = [v for v in arrays.values() if v.ndim >= 2]
        if not flat:
            raise BadInput(f"{file} holds no arrays of rows and steps")
        shape = flat[0].shape[:2]
        arrays = {k: v for k, v in arrays.items() if v.shape[:2] == shape}
        row, step = (i.ravel() for i in np.indices(shape))
    columns = {"row": row, "step": step}
    for name, values in arrays.items():
        rest = values.shape[len(shape) :]
        if rest == ():
            columns[name] = values.ravel()
        elif len(rest) == 1 and rest[0] <= 4:
            columns |= {f"{name}_{i}": values[..., i].ravel() for i in range(rest[0])}
    stop = None if rows is None else first + rows
    return pa.table({k: v[first:stop] for k, v in columns.items()})
