"""Forms in which points come: the published ones by name, what columns are usually called, and which a file has."""

import glob
import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from msgspec import Struct

from mobtk.errors import BadInput, first_line
from mobtk.storage import PathLike

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


def find_files(sources: PathLike | Sequence[PathLike], pattern: Sequence[str] = TABLES) -> list[Path]:
    """The files that are meant: each may be a file, a folder (searched whole) or a glob.

    Raises:
        BadInput: one is nothing, or holds no file of the kind.
    """
    found: list[Path] = []
    for source in [sources] if isinstance(sources, (str, os.PathLike)) else sources:
        path = Path(source)
        if path.is_dir():
            names = (
                f
                for f in path.rglob("*")
                if f.is_file()
                and not any(part.startswith((".", "_")) for part in f.relative_to(path).parts)
                and kind_of(f) in pattern
                and (f.suffix != ".json" or b'"Feature' in first_bytes(f, 4096))
            )
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
        if start == b"PK\x03\x04" and kind_of(file) != ".npz":
            raise BadInput(f"{file} is a zip archive: unpack it, and give what was in it")
    return list(dict.fromkeys(found))


def find_format(sources: PathLike | Sequence[PathLike]) -> str:
    """Which of :data:`FORMATS` the files have, by their names and first lines."""
    file = find_files(sources)[0]
    kind = kind_of(file)
    if kind == ".gpx":
        return "gpx"
    if kind not in TEXT:
        return "table"
    lines = [line for line in first_bytes(file).split(b"\n")[:8] if line.strip()]
    head = [line.decode("latin-1").rstrip("\r") for line in lines]
    if not head:
        return "table"
    if kind == ".plt" and head[:1] == ["Geolife trajectory"]:
        return "geolife"
    if head[0].replace('"', "").split(",")[:5] == ["uid", "d", "t", "x", "y"]:
        return "yjmob"
    if "POLYLINE" in head[0] and "TIMESTAMP" in head[0]:
        return "porto"
    tabs, commas = head[0].split("\t"), head[0].split(",")
    if len(tabs) == 8 and tabs[7].endswith(tuple(str(y) for y in range(2009, 2020))) and "+0000" in tabs[7]:
        return "tsmc2014"
    if len(tabs) == 5 and tabs[1].endswith("Z") and "T" in tabs[1] and is_number(tabs[2]) and is_number(tabs[3]):
        return "snap"
    taxi = len(commas) == 4 and commas[0].isdigit() and len(commas[1]) == 19 and all(map(is_number, commas[2:]))
    if taxi and 115 <= float(commas[2]) <= 118 and 39 <= float(commas[3]) <= 42:  # longitude first, and in Beijing
        return "t-drive"
    return "table"


def kind_of(file: Path) -> str:
    """How a name ends, without the ``.gz`` of a compressed text."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def first_bytes(file: Path, size: int = HEAD) -> bytes:
    """The first bytes of a file, unpacked where it is compressed."""
    opened: Any = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # noqa: SIM115 - closed by those who read it
    try:
        with opened as source:
            return bytes(source.read(size))
    except (OSError, EOFError) as error:
        raise unreadable(file, error) from None


def is_utf16(file: Path) -> bool:
    """Whether a text begins with the mark of UTF-16."""
    with file.open("rb") as source:
        return source.read(2) in (b"\xff\xfe", b"\xfe\xff")


def is_number(word: str) -> bool:
    """Whether a word is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def unreadable(file: Path, error: BaseException) -> BadInput:
    """The sentence for a file that a library does not read."""
    return BadInput(f"{file} cannot be read: {first_line(error)}; is it complete?")


def some_names(names: Sequence[str]) -> str:
    """The names of columns, or the first of very many."""
    shown = [str(n)[:40] for n in names[:30]]
    return ", ".join(shown) + (f" and {len(names) - 30:,} more" if len(names) > 30 else "")
