"""Files of points in any form: what they are, the pieces they are read in, and the points in a piece.

A piece is small enough for memory and is read by itself, here or in another process; the same files give the same pieces.
"""

import glob
import gzip
import io
import math
import os
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
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.data.moments import moments, origin_us
from mobtk.data.points import MISSING, Points, concat
from mobtk.errors import BadInput, first_line
from mobtk.storage import PathLike

BLOCK = 48 << 20
"""Bytes of a piece of text."""
ROWS = 1_000_000
"""Rows of a piece of Parquet, about."""
HEAD = 1 << 20
"""Bytes in which the header of a text must end."""

USERS = (
    "user", "user_id", "userid", "uid", "individual-local-identifier", "device_id", "deviceid", "device", "vehicle_id",
    "vehicleid", "vehicle", "taxi_id", "taxiid", "taxi", "cab_id", "cab", "person_id", "person", "agent_id", "agent", "imei",
    "maid", "track_id", "trackid", "trajectory_id", "traj_id", "trip_id", "trip", "tid", "id", "row",
)  # fmt: skip
TIMES = (
    "time", "timestamp", "datetime", "date_time", "tracked_at", "utc_time", "utctime", "utc", "time_utc", "gps_time",
    "gpstime", "event_time", "checkin_time", "check-in_time", "ts", "t", "date", "unixtime", "epoch", "minute", "second",
)  # fmt: skip
LATS = ("lat", "latitude", "location-lat", "location_lat", "gps_lat")
LONS = ("lon", "lng", "long", "longitude", "location-long", "location_long", "location-lon", "gps_lon", "gps_lng")
PLANE = "+proj=aeqd +lat_0=0 +lon_0=0 +units=m"
"""Metres about a place that stands for one that nobody tells."""
COMPONENTS = ("year", "month", "day", "hour", "minute", "second")


class Reading(Struct, frozen=True, omit_defaults=True):
    """How the rows of a file become points. Everything has a default; what is ``None`` is found by name or by looking.

    Args:
        format: name of one of :data:`FORMATS`.
        user: column that says who; several joined by commas are one name; ``@file`` and ``@folder`` take the name of the
            file or of its folder.
        time: column that says when; or ``year,month,day,...`` of those.
        lat, lon: columns of the position; y and x where there is a ``crs``.
        accuracy: column of the accuracy, metres.
        columns: names of the columns of a text without a header.
        separator, decimal, encoding: of a text.
        time_unit: what numeric times count: ``ns us ms s min h D`` or a duration such as ``10ms``.
        time_origin: the moment they count from, in UTC if it has no offset; 1970.
        time_format: how times in words are written, as for ``strptime``; ISO 8601.
        naive: zone of times without an offset, an IANA name.
        scale: factor that makes degrees, or the units of the ``crs``.
        crs: coordinate system of the positions, such as ``EPSG:25832``; ``metres`` for a plane without a place.
        places: table that gives positions to ids of places.
        place: the id column in both.
    """

    format: str = "table"
    user: str | None = None
    time: str | None = None
    lat: str | None = None
    lon: str | None = None
    accuracy: str | None = None
    columns: tuple[str, ...] | None = None
    separator: str | None = None
    decimal: str = "."
    encoding: str | None = None
    time_unit: str | None = None
    time_origin: str | None = None
    time_format: str | None = None
    naive: str = "UTC"
    scale: float = 1.0
    crs: str | None = None
    places: str | None = None
    place: str | None = None


class Format(Struct, frozen=True):
    """A form in which points are published.

    Args:
        title: what it is.
        pattern: file names in a folder of it.
        preset: fields of :class:`Reading` that it fixes.
        note: what one should know of it.
    """

    title: str
    pattern: tuple[str, ...]
    preset: dict[str, Any]
    note: str = ""


TEXT = (".csv", ".tsv", ".txt", ".dat", ".plt")
PARQUET = (".parquet", ".geoparquet", ".pq")
GEO = (".gpkg", ".geojson", ".shp", ".fgb", ".gpx", ".json")
TABLES = (*TEXT, *PARQUET, *GEO, ".npz")

FORMATS: dict[str, Format] = {
    "table": Format("a table with a row a point", TABLES, {}),
    "geolife": Format(
        "GeoLife (Microsoft Research Asia): Data/USER/Trajectory/*.plt",
        (".plt",),
        {"user": "@geolife", "time": "day,clock", "lat": "lat", "lon": "lon", "separator": ",",
         "columns": ("lat", "lon", "zero", "altitude_feet", "days", "day", "clock")},
        "times are GMT; people live in and around Beijing: --timezone Asia/Shanghai",
    ),
    "tsmc2014": Format(
        "Foursquare check-ins of Yang et al. 2014 (dataset_TSMC2014_NYC.txt, _TKY.txt)",
        (".txt",),
        {"user": "user", "time": "utc_time", "lat": "lat", "lon": "lon", "separator": "\t", "encoding": "latin-1",
         "time_format": "%a %b %d %H:%M:%S %z %Y",
         "columns": ("user", "venue", "category_id", "category", "lat", "lon", "offset", "utc_time")},
        "check-ins: --step event --mapper places --split time; --timezone America/New_York or Asia/Tokyo",
    ),
    "snap": Format(
        "Gowalla or Brightkite check-ins as SNAP has them (loc-*_totalCheckins.txt)",
        (".txt",),
        {"user": "user", "time": "time", "lat": "lat", "lon": "lon", "separator": "\t",
         "columns": ("user", "time", "lat", "lon", "venue")},
        "check-ins of the whole world: --bounds around one city, --step event --mapper places --split time",
    ),
    "yjmob": Format(
        "YJMob100K (Yabe et al. 2024): uid,d,t,x,y",
        (".csv",),
        {"user": "uid", "time": "d,t", "lat": "y", "lon": "x", "scale": 500.0, "crs": "metres",
         "time_origin": "2000-01-03"},
        "a city that is not named: cells of 500 m on a plane, days counted from a Monday that stands for day 0; use "
        "--set size=500 --step 30min",
    ),
    "t-drive": Format(
        "T-Drive taxis (Microsoft Research Asia): id,datetime,lon,lat in a file a taxi",
        (".txt",),
        {"user": "user", "time": "time", "lat": "lat", "lon": "lon", "separator": ",", "naive": "Asia/Shanghai",
         "columns": ("user", "time", "lon", "lat")},
        "times are of Beijing: --timezone Asia/Shanghai",
    ),
    "porto": Format(
        "Porto taxis (ECML/PKDD 2015): a trip a row, POLYLINE with a position every 15 s",
        (".csv",),
        {"user": "TAXI_ID", "time": "TIMESTAMP", "lat": "POLYLINE", "lon": "POLYLINE", "separator": ","},
        "times are UTC: --timezone Europe/Lisbon",
    ),
    "gpx": Format(
        "GPX tracks: a file a user",
        (".gpx",),
        {"user": "@file", "time": "time", "lat": "lat", "lon": "lon"},
        "the name of the file says who",
    ),
}  # fmt: skip


class Span(Struct, frozen=True):
    """A part of a file: bytes of a text, row groups of Parquet, or all of it where ``last`` is -1."""

    file: str
    first: int = 0
    last: int = -1


Piece = tuple[Span, ...]


def find_files(sources: PathLike | Sequence[PathLike], pattern: Sequence[str] = TABLES) -> list[Path]:
    """The files that are meant: each may be a file, a folder (searched whole) or a glob.

    Raises:
        BadInput: one is nothing, or holds no file of the kind.
    """
    found: list[Path] = []
    for source in [sources] if isinstance(sources, (str, os.PathLike)) else sources:
        path = Path(source)
        if path.is_dir():
            names = (f for f in path.rglob("*") if f.is_file() and not f.name.startswith((".", "_")) and _kind(f) in pattern)
            inside = sorted(f for f in names if f.name.lower() not in ("readme.txt", "labels.txt"))
            if not inside:
                raise BadInput(f"folder {path} holds no file that ends in {', '.join(pattern)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matches = sorted(Path(m) for m in glob.glob(str(path), recursive=True) if Path(m).is_file())
            if not matches:
                raise BadInput(f"{path} is not a file{', and no file is like it' if glob.has_magic(str(path)) else ''}")
            found += matches
    if not found:
        raise BadInput("no file is named; give a file, a folder or a pattern such as 'points/*.csv'")
    for file in found:
        if not file.is_file():
            raise BadInput(f"{file} is not a file")
        if not file.stat().st_size:
            raise BadInput(f"{file} is empty")
        with file.open("rb") as head:
            start = head.read(4)
        if start == b"PK\x03\x04" and _kind(file) != ".npz":
            raise BadInput(f"{file} is a zip archive: unpack it, and give what was in it")
    return list(dict.fromkeys(found))


def find_format(sources: PathLike | Sequence[PathLike]) -> str:
    """Which of :data:`FORMATS` the files have, by their names and first lines."""
    file = find_files(sources)[0]
    kind = _kind(file)
    if kind == ".gpx":
        return "gpx"
    if kind not in TEXT:
        return "table"
    lines = [line for line in _first_bytes(file).split(b"\n")[:8] if line.strip()]
    head = [line.decode("latin-1").rstrip("\r") for line in lines]
    if kind == ".plt" and head[:1] == ["Geolife trajectory"]:
        return "geolife"
    if head[0].replace('"', "").split(",")[:5] == ["uid", "d", "t", "x", "y"]:
        return "yjmob"
    if "POLYLINE" in head[0] and "TIMESTAMP" in head[0]:
        return "porto"
    tabs, commas = head[0].split("\t"), head[0].split(",")
    if len(tabs) == 8 and tabs[7].endswith(tuple(str(y) for y in range(2009, 2020))) and "+0000" in tabs[7]:
        return "tsmc2014"
    if len(tabs) == 5 and tabs[1].endswith("Z") and "T" in tabs[1] and _is_number(tabs[2]) and _is_number(tabs[3]):
        return "snap"
    if len(commas) == 4 and commas[0].isdigit() and len(commas[1]) == 19 and all(map(_is_number, commas[2:])):
        return "t-drive"
    return "table"


def settle(sources: PathLike | Sequence[PathLike], wish: Reading) -> tuple[list[Path], Reading]:
    """The files, and how they are read: what the wish leaves open is found by the format, by name or by looking.

    Raises:
        BadInput: a column is missing, has no clear name, or its unit cannot be told.
    """
    name = find_format(sources) if wish.format == "auto" else wish.format
    if name not in FORMATS:
        raise BadInput(f"format {name!r} is not one of auto, {', '.join(FORMATS)}")
    form = FORMATS[name]
    files = find_files(sources, form.pattern)
    default = Reading()
    told = {f: v for f in Reading.__struct_fields__ if (v := getattr(wish, f)) != getattr(default, f) and f != "format"}
    reading = msgspec.structs.replace(Reading(format=name, **form.preset), **told)
    if name != "table" and name != "gpx":
        return files, reading
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
        head = sample(files[0], reading, 10_000)
        reading = msgspec.structs.replace(reading, time_unit=_unit(head, reading))
    return files, reading


def _column(file: Path, columns: Sequence[str], role: str, told: str | None, usual: Sequence[str]) -> str | None:
    """The name of a column, as it is in the file."""
    if told is not None:
        if told.startswith("@") or told in columns or (told == "geometry" and role in ("lat", "lon")):
            return told
        missing = [part for part in told.split(",") if part not in columns]
        if not missing and role in ("user", "time"):
            return told
        raise BadInput(
            f"{file} has no column {missing[0]!r} for the {role}; it has {', '.join(map(str, columns))}: name the right "
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
        f"{', '.join(map(str, columns))}: name the right one with --{role}, or try: mobtk data check {file}"
    )


def _unit(head: pa.Table, reading: Reading) -> str | None:
    """What numeric times count, where their size says so."""
    time = str(reading.time)
    if time not in head.column_names or not _is_numeric(head[time].type):
        return None
    values = head[time].drop_null().to_numpy()
    if not len(values):
        return None
    largest = float(np.nanmax(np.abs(values)))
    for unit, low, high in (("s", 1e8, 1e10), ("ms", 1e11, 1e13), ("us", 1e14, 1e16), ("ns", 1e17, 1e19)):
        if low <= largest < high and reading.time_origin is None and not 1.9e13 <= largest < 2.2e13:
            return unit
    raise BadInput(
        f"column {time!r} holds numbers up to {largest:g}: say what they count with --time-unit (ns, us, ms, s, min, h, "
        "D), and from when with --time-origin if not from 1970; or how they are written with --time-format"
    )


def column_names(file: Path, reading: Reading) -> list[str]:
    """Names of the columns of a file."""
    kind = _kind(file)
    try:
        if kind in PARQUET:
            return list(pq.read_schema(file).names)
        if kind == ".npz":
            return _npz(file, 0, 1).column_names
        if kind in GEO:
            return list(_geo(file, reading, 1).columns)
        return _text(file, reading).names
    except BadInput:
        raise
    except Exception as error:
        raise _unreadable(file, error) from None


def sample(file: Path, reading: Reading, rows: int) -> pa.Table:
    """The first rows of a file as they are."""
    kind = _kind(file)
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
        text = _text(file, reading)
        head = _first_bytes(file, max(HEAD, 400 * rows))
        whole = head if len(head) < max(HEAD, 400 * rows) else head[: head.rfind(b"\n") + 1]
        lines = whole.decode(text.encoding, "replace").splitlines(keepends=True)[text.skip : text.skip + rows]
        return _parse("".join(lines).encode(), text, None, [])
    except BadInput:
        raise
    except Exception as error:
        raise _unreadable(file, error) from None


def estimate_rows(files: Iterable[Path], reading: Reading) -> int:
    """How many rows there are, about: exact for Parquet, by the length of the first lines for text."""
    total, text_bytes, sampled, lines = 0, 0, 0, 0
    for file in files:
        kind = _kind(file)
        if kind in PARQUET:
            try:
                total += pq.read_metadata(file).num_rows
            except Exception as error:
                raise _unreadable(file, error) from None
        elif kind in GEO:
            total += file.stat().st_size // 60
        elif kind == ".npz":
            total += len(_npz(file, 0, None))
        else:
            text_bytes += file.stat().st_size * (6 if file.suffix == ".gz" else 1)
            if sampled < HEAD:
                head = _first_bytes(file, 1 << 16)
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
    kind = _kind(file)
    if kind in PARQUET:
        try:
            meta = pq.read_metadata(file)
        except Exception as error:
            raise _unreadable(file, error) from None
        first, rows = 0, 0
        for group in range(meta.num_row_groups):
            rows += meta.row_group(group).num_rows
            if rows >= ROWS or group + 1 == meta.num_row_groups:
                yield Span(str(file), first, group + 1), rows / ROWS
                first, rows = group + 1, 0
    elif kind in TEXT and file.suffix != ".gz" and (reading.encoding or "utf-8").lower() in SPLITTABLE and not _bom16(file):
        for first in range(0, size, BLOCK):
            yield Span(str(file), first, min(size, first + BLOCK)), min(size - first, BLOCK) / BLOCK
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
            raise _unreadable(Path(span.file), error) from None
    return (parts[0] if len(parts) == 1 else concat(parts)), broken[0]


def _read_span(span: Span, reading: Reading, broken: list[int]) -> Iterator[Points]:
    file = Path(span.file)
    kind = _kind(file)
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
        text = _text(file, reading)
        for block in _blocks(file, span, text):
            table = _parse(block, text, reading, broken)
            if len(table):
                yield from _polylines(table, reading) if reading.format == "porto" else [_points(table, reading, file)]


def _wanted(reading: Reading, present: Sequence[str], file: Path) -> list[str]:
    """The columns to read of a file."""
    columns: list[str] = []
    for role in ("user", "time", "lat", "lon", "accuracy", "place"):
        told = getattr(reading, role)
        if told is None or told.startswith("@") or (told == "geometry" and role in ("lat", "lon")):
            continue
        if reading.places is not None and role in ("lat", "lon"):
            continue
        parts = [told] if told in present else told.split(",")
        for part in parts:
            if part not in present:
                raise BadInput(
                    f"{file} has no column {part!r} for the {role}; it has {', '.join(map(str, present))}: name the right "
                    f"one with --{role}"
                )
        columns += parts
    return list(dict.fromkeys(columns))


# ---------------------------------------------------------------------------------------------------------- tables


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
        name = {"@file": file.stem, "@folder": file.parent.name, "@geolife": file.parent.parent.name}.get(told)
        if name is None:
            raise BadInput(f"--user {told!r} is not one of @file, @folder, or a column")
        return np.zeros(len(table), np.int32), np.array([name], object)
    if told in table.column_names:
        column = table[told].combine_chunks()
    else:
        parts = [pc.cast(table[c], pa.string()) for c in told.split(",")]
        column = pc.binary_join_element_wise(*parts, "-")
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
    if gone.any():
        user[gone[user] & (user >= 0)] = -1
        names[gone] = ""
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
    return pc.binary_join_element_wise(*(pc.cast(table[c], pa.string()) for c in parts), " ")


def _floats(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Numbers; NaN where there is none, or something that is none."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if _is_numeric(column.type):
        return np.asarray(column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False), np.float64)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(column.type):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    return pd.to_numeric(column.to_pandas().astype(str), errors="coerce").to_numpy(np.float64)


@lru_cache(maxsize=2)
def _spot_table(reading: Reading) -> pd.DataFrame:
    """Positions of the places, by id."""
    file = Path(str(reading.places))
    if not file.is_file():
        raise BadInput(f"{file} is not a file; --places wants a table of ids and positions")
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
    found = _spot_table(reading).reindex(_ids(ids))
    return found["lat"].to_numpy() * reading.scale, found["lon"].to_numpy() * reading.scale


def _ids(column: pa.ChunkedArray) -> pd.Index:
    return pd.Index(pc.cast(column, pa.string()).to_pandas())


# --------------------------------------------------------------------------------------------------------- Parquet


def _parquet(file: Path, span: Span, reading: Reading) -> pa.Table:
    """Wanted columns of some row groups."""
    source = pq.ParquetFile(file)
    columns = _wanted(reading, source.schema_arrow.names, file)
    last = source.num_row_groups if span.last < 0 else span.last
    if not source.metadata.num_rows:
        raise BadInput(f"{file} has a header but no rows")
    return source.read_row_groups(list(range(span.first, last)), columns=columns, use_threads=False)


def _has_geometry(file: Path) -> bool:
    kind = _kind(file)
    if kind in PARQUET:
        try:
            return b"geo" in (pq.read_schema(file).metadata or {})
        except Exception as error:
            raise _unreadable(file, error) from None
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

    layer = {"layer": "track_points"} if _kind(file) == ".gpx" else {}
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


# ------------------------------------------------------------------------------------------------------------ text

SPLITTABLE = ("utf-8", "utf8", "utf-8-sig", "ascii", "latin-1", "latin1", "iso-8859-1", "cp1252", "windows-1252")


class Text(Struct, frozen=True):
    """How a text is laid out: what parts its columns, their names, and the lines before the first row."""

    separator: str
    names: list[str]
    skip: int
    encoding: str
    decimal: str


@lru_cache(maxsize=4096)
def _text(file: Path, reading: Reading) -> Text:
    """The layout of a text, by its first lines."""
    head = _first_bytes(file)
    encoding = reading.encoding or ("utf-16" if _bom16(file) else "utf-8-sig")
    try:
        words = head.decode(encoding)
    except LookupError:
        raise BadInput(f"--encoding {encoding!r} is unknown; try utf-8, latin-1 or utf-16") from None
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            told = f"not in {encoding}" if reading.encoding else "not UTF-8"
            raise BadInput(
                f"{file} is {told} (byte {head[error.start]:#04x} in its first lines); say what it is with --encoding, "
                "such as latin-1"
            ) from None
        words = head.decode(encoding, "ignore")
    if "\x00" in words[:4096]:
        raise BadInput(f"{file} is no text: it holds zero bytes; is it of another kind than its name says?")
    lines = words.splitlines()
    if len(lines) <= 1 and len(head) >= HEAD:
        raise BadInput(f"{file}: its first line is longer than {HEAD >> 20} MB; it is no table of points")
    blank = next((i for i, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise BadInput(f"{file} is empty")
    if reading.format == "geolife":
        return Text(",", list(reading.columns or ()), 6, encoding, ".")
    first = lines[blank]
    separator = reading.separator or _separator(first)
    separator = {"tab": "\t", "space": " ", "\\t": "\t"}.get(separator, separator)
    if len(separator) != 1:
        raise BadInput(f"--separator is one character, or tab or space, not {separator!r}")
    fields = [f.strip().strip('"') for f in first.split(separator)]
    if reading.columns is not None:
        if len(fields) != len(reading.columns):
            raise BadInput(f"{file} has {len(fields)} columns, and {len(reading.columns)} are named: {','.join(fields)}")
        return Text(separator, list(reading.columns), blank, encoding, reading.decimal)
    if sum(map(_is_number, fields)) >= max(1, len(fields) // 2) and reading.format == "table":
        raise BadInput(
            f"{file} has no header (its first line is {first[:80]!r}); name its columns with --columns, such as "
            f"{','.join(['user', 'time', 'lat', 'lon', *(f'c{i}' for i in range(5, 99))][: len(fields)])}"
        )
    return Text(separator, fields, blank + 1, encoding, reading.decimal)


def _separator(line: str) -> str:
    """What parts the columns, by one line."""
    best = max(",;\t|", key=line.count)
    return best if line.count(best) else " "


def _blocks(file: Path, span: Span, text: Text) -> Iterator[bytes]:
    """Whole lines of a part of a text, in UTF-8, without the header."""
    whole = span.last < 0
    if not whole:
        with file.open("rb") as source:
            begin = span.first
            if begin == 0:
                for _ in range(text.skip):
                    source.readline()
            else:
                source.seek(begin - 1)
                source.readline()
            begin = source.tell()
            data = source.read(max(0, span.last - begin)) if begin < span.last else b""
            if data and not data.endswith(b"\n"):
                data += source.readline()
        yield _recoded(data, text, file)
        return
    opened: Any = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")
    with io.TextIOWrapper(opened, encoding=text.encoding, newline="\n") as lines:
        for _ in range(text.skip):
            lines.readline()
        while block := lines.read(BLOCK // 4):
            yield (block + lines.readline()).encode()


def _recoded(data: bytes, text: Text, file: Path) -> bytes:
    if text.encoding in ("utf-8", "utf-8-sig", "ascii", "utf8"):
        return data
    return data.decode(text.encoding).encode()


def _parse(block: bytes, text: Text, reading: Reading | None, broken: list[int]) -> pa.Table:
    """Rows of a block of lines; of all columns where there is no reading."""
    use = _wanted(reading, text.names, Path("the file")) if reading is not None else text.names
    if reading is not None and reading.format == "porto":
        use = ["TAXI_ID", "TIMESTAMP", "POLYLINE"]
    if not block.strip():
        return pa.table({c: pa.array([], pa.string()) for c in use})
    names = _distinct(text.names)
    if text.separator == " ":
        block = b"\n".join(b" ".join(line.split()) for line in block.splitlines())

    def count(row: Any) -> str:
        if broken:
            broken[0] += 1
        return "skip"

    types: dict[str, pa.DataType] = {}
    if reading is not None:
        words = [c for c in str(reading.user).split(",") if c in use] + ([reading.place] if reading.place else [])
        types = {c: pa.dictionary(pa.int32(), pa.string()) for c in words}
        if reading.format == "geolife":
            types |= {"day": pa.string(), "clock": pa.string()}
    try:
        return pyarrow.csv.read_csv(
            io.BytesIO(block),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
            parse_options=pyarrow.csv.ParseOptions(delimiter=text.separator, invalid_row_handler=count),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=use, column_types=types, strings_can_be_null=True, decimal_point=text.decimal
            ),
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error) or "utf" in str(error).lower():
            raise BadInput("it holds bytes that are not UTF-8; say what it is with --encoding, such as latin-1") from None
        raise


def _distinct(names: Sequence[str]) -> list[str]:
    """Names without repetition: a second ``x`` is no column that anybody can name."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


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


# ------------------------------------------------------------------------------------------------------------- npz


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
                shape, _, kind = read(array)
                if math.prod(shape) * kind.itemsize > member.file_size or member.file_size > 4 << 30:
                    raise ValueError(f"array {member.filename} says it has the shape {shape}")
    arrays = dict(np.load(file, allow_pickle=False))
    if "lengths" in arrays:
        lengths = arrays.pop("lengths").astype(np.int64)
        total = int(lengths.sum())
        arrays = {k: v for k, v in arrays.items() if len(v) == total}
        shape: tuple[int, ...] = (total,)
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


# --------------------------------------------------------------------------------------------------------- helpers


def _kind(file: Path) -> str:
    """How a name ends, without the ``.gz`` of a compressed text."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _first_bytes(file: Path, size: int = HEAD) -> bytes:
    opened: Any = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")
    try:
        with opened as source:
            return bytes(source.read(size))
    except (OSError, EOFError) as error:
        raise _unreadable(file, error) from None


@lru_cache(maxsize=4096)
def _bom16(file: Path) -> bool:
    with file.open("rb") as source:
        return source.read(2) in (b"\xff\xfe", b"\xfe\xff")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _unreadable(file: Path, error: BaseException) -> BadInput:
    return BadInput(f"{file} cannot be read: {first_line(error)}; is it complete?")
