"""What the columns of a table are likely to be: by name, by part of a name, by value; and their units."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.data.formats import COMPONENTS, LATS, LONS, TIMES, USERS, Reading
from mobtk.data.moments import DIGITS, moments, unit_of, zone_at
from mobtk.data.points import UNREADABLE
from mobtk.data.sources import column_names, sample
from mobtk.data.text import NoHeader
from mobtk.errors import BadInput

STAND_IN = "2000-01-03"
"""A Monday, where numbers count from a day that nobody tells."""


class Column(Struct):
    """A column as it was found: its type, share of missing values, some values, and what it is likely to be."""

    name: str
    type: str
    missing: float
    examples: list[str]
    likely: str = ""


def guess(file: Path, reading: Reading) -> tuple[Reading, list[Column], list[str]]:
    """Which columns say who, when and where, and in which units.

    Args:
        file: a table.
        reading: what is known already.

    Returns:
        The reading with what was guessed, the columns, and what one should know of the guesses, a sentence each.

    Raises:
        BadInput: the file has no rows or cannot be read.
    """
    columns: list[Column] = []
    notes: list[str] = []
    try:
        present = column_names(file, reading)
    except NoHeader as error:
        names = tuple(f"c{i + 1}" for i in range(error.columns))
        reading = msgspec.structs.replace(reading, columns=names, format="table")
        present = list(names)
        notes.append(f"it has no header; its columns are called {', '.join(names)} here, by --columns")
    head = sample(file, reading, 50_000)
    if not len(head):
        raise BadInput(f"{file} has a header but no rows")
    geometry = "geometry" in present
    found: dict[str, str | None] = {r: getattr(reading, r) for r in ("user", "time", "lat", "lon")}
    if geometry:
        found["lat"] = found["lon"] = "geometry"
    if reading.places is not None:
        found["lat"] = found["lon"] = ""
    if reading.decimal == "." and any(_has_decimal_commas(head[c]) for c in head.column_names):
        reading = msgspec.structs.replace(reading, decimal=",")
        head = sample(file, reading, 50_000)
        notes.append("numbers are written with decimal commas: --decimal ,")
    values = {c: _values(head[c]) for c in present if c in head.column_names}
    lower = {c.lower().strip(): c for c in reversed(present)}
    taken = set(filter(None, found.values()))
    for role, usual in (("lat", LATS), ("lon", LONS), ("time", TIMES), ("user", USERS)):
        if found[role] is None:
            found[role] = next((lower[n] for n in usual if n in lower and lower[n] not in taken), None)
            taken.add(str(found[role]))
    clock = next((lower[n] for n in CLOCKS if n in lower), None)
    apart = clock is not None and "date" in lower and found["time"] in (None, clock, lower["date"])
    if apart and _is_day(head[lower["date"]]):
        found["time"] = f"{lower['date']},{clock}"
        taken |= {lower["date"], str(clock)}
    if found["time"] is None and {"year", "month", "day"} <= set(lower):
        found["time"] = ",".join(lower[c] for c in COMPONENTS if c in lower)
        taken |= {lower[c] for c in COMPONENTS if c in lower}
    _by_name_part(found, present, taken)
    _by_value(found, values, head, taken)
    if found["time"] is None and "step" in present and "row" in present:
        found["time"] = "step"
        notes.append("nothing says when: the number of a position in its row stands for it, a second each")
    if found["user"] in ("row",) and "row" in present:
        notes.append("every row of the arrays is taken for a user")
    if found["user"] is not None and "name" in lower and found["user"] == lower["name"] and "year" in lower:
        found["user"] = f"{lower['name']},{lower['year']}"
        notes.append("names may come again in another year: a user is a name and a year")
    changes: dict[str, Any] = {k: v or None for k, v in found.items()}
    if found["time"] == "step":
        changes |= {"time_unit": "s", "time_origin": STAND_IN}
    if reading.places is not None:
        changes["lat"] = changes["lon"] = None
    reading = msgspec.structs.replace(reading, **changes)
    if reading.lat and reading.lon and not geometry:
        reading = _units_of_place(reading, values, notes)
    if reading.time:
        reading = _units_of_time(reading, head, notes)
    roles = {str(getattr(reading, r)): r for r in ("user", "time", "lat", "lon", "place", "accuracy") if getattr(reading, r)}
    for name in present:
        column = head[name] if name in head.column_names else None
        likely = next((r for c, r in roles.items() if name == c or name in c.split(",")), "")
        if column is None:
            columns.append(Column(name, "geometry", 0.0, [], "position"))
            continue
        seen = [str(v)[:24] for v in dict.fromkeys(column.slice(0, 1000).to_pylist()) if v is not None][:3]
        kind = "text" if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else str(column.type)
        columns.append(Column(name, kind, column.null_count / len(column), seen, likely))
    return reading, columns, notes


CLOCKS = ("time", "hour", "clock")
"""Names of the column beside a ``date`` that says when of that day."""


def _is_day(column: pa.ChunkedArray) -> bool:
    """Whether dates are without a time of day."""
    if pa.types.is_string(column.type):
        return all(len(str(word)) <= 10 for word in column.drop_null().slice(0, 200).to_pylist())
    return bool(pa.types.is_date(column.type)) or (
        pa.types.is_timestamp(column.type) and bool((column.drop_null().to_pandas().dt.hour == 0).all())
    )


def _has_decimal_commas(column: pa.ChunkedArray) -> bool:
    """Whether words are numbers but for a comma."""
    if not pa.types.is_string(column.type):
        return False
    words = [str(word) for word in column.drop_null().slice(0, 200).to_pylist()]
    return bool(words) and all(re.fullmatch(r"-?\d+,\d+", word) for word in words)


def _values(column: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """Numbers of a column that has some."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = column.drop_null().to_numpy().astype(float)
        numbers = numbers[np.isfinite(numbers)]
        return numbers if len(numbers) else None
    return None


def _by_name_part(found: dict[str, str | None], present: Sequence[str], taken: set[str]) -> None:
    """Columns whose names only hold a usual one, such as ``lat_e6`` or ``pickup_time``."""
    parts = {
        "lat": ("lat", "y_", "y"), "lon": ("lon", "lng", "x_", "x"), "time": ("time", "date", "t_", "stamp", "minute"),
        "user": ("user", "person", "device", "vehicle", "taxi", "identifier", "animal", "tag", "name", "id"),
    }  # fmt: skip
    for role, words in parts.items():
        if found[role] is None:
            for word in words:
                fits = [c for c in present if c not in taken and (word in c.lower() if len(word) > 1 else c.lower() == word)]
                if role in ("lat", "lon"):
                    fits = [c for c in fits if c.lower().startswith(word) or word not in ("y_", "x_")]
                if word == "id":
                    fits = [c for c in fits if c.lower() in ("id",) or c.lower().endswith(("_id", "id"))]
                if fits:
                    found[role] = fits[0]
                    taken.add(fits[0])
                    break
    pair = [c for c in present if c.lower().endswith("_0")]
    for first in pair:
        second = first[:-1] + "1"
        if found["lon"] is None and found["lat"] is None and second in present:
            found["lon"], found["lat"] = first, second
            taken |= {first, second}


def _by_value(
    found: dict[str, str | None], values: dict[str, NDArray[np.float64] | None], head: pa.Table, taken: set[str]
) -> None:
    """Columns that nothing but their values tells."""
    if found["lat"] is None or found["lon"] is None:
        real = [c for c, v in values.items() if v is not None and c not in taken and (v != np.floor(v)).any()]
        real = [c for c in real if np.abs(values[c]).max() <= 180 and np.ptp(values[c]) > 0]  # type: ignore[arg-type]
        if len(real) >= 2:
            first, second = real[:2]
            swap = np.abs(values[first]).max() > 90  # type: ignore[arg-type]
            found["lat"], found["lon"] = (second, first) if swap else (first, second)
            taken |= {first, second}
    if found["time"] is None:
        for name in head.column_names:
            if name in taken:
                continue
            column = head[name]
            if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
                found["time"] = name
            elif pa.types.is_string(column.type):
                read = pd.to_datetime(column.slice(0, 200).to_pandas(), errors="coerce", format="mixed", utc=True)
                if read.notna().mean() > 0.9:
                    found["time"] = name
            elif (v := values[name]) is not None and 1e8 <= np.abs(v).max() < 2e19 and np.median(v) > 1e8:
                found["time"] = name
            if found["time"] == name:
                taken.add(name)
                break
    if found["user"] is None:
        for name in head.column_names:
            if name in taken or pa.types.is_floating(head[name].type):
                continue
            distinct = len(head[name].unique())
            if 1 < distinct <= max(2, len(head) // 2):
                found["user"] = name
                taken.add(name)
                break


def _units_of_place(reading: Reading, values: dict[str, NDArray[np.float64] | None], notes: list[str]) -> Reading:
    """Swapped axes, millionths of a degree, metres of a plane."""
    lat, lon = values.get(str(reading.lat)), values.get(str(reading.lon))
    if lat is None or lon is None or reading.scale != 1.0 or reading.crs is not None:
        return reading
    top_lat, top_lon = (float(np.quantile(np.abs(v), 0.99)) for v in (lat, lon))
    if top_lat <= 90 and top_lon <= 180:
        if _ocean(np.median(lat), np.median(lon)) and np.abs(lon).max() <= 90 and not _ocean(np.median(lon), np.median(lat)):
            notes.append(
                "the middle of the points lies in an ocean, and on land with the axes swapped: they are taken for swapped"
            )
            return msgspec.structs.replace(reading, lat=reading.lon, lon=reading.lat)
        return reading
    if top_lon <= 90 and top_lat <= 180:
        notes.append(f"columns {reading.lat!r} and {reading.lon!r} are swapped: latitudes reach {top_lat:g}")
        return msgspec.structs.replace(reading, lat=reading.lon, lon=reading.lat)
    names = f"{reading.lat} {reading.lon}".lower()
    whole = bool((lat == np.floor(lat)).all())
    for suffix, scale, unit in (
        ("_mm", 1e-3, "millimetres"),
        ("_cm", 0.01, "centimetres"),
        ("_dm", 0.1, "decimetres"),
        ("_m", 1.0, "metres"),
    ):
        if any(part.rstrip("_01").endswith(suffix) for part in names.split()):
            notes.append(f"positions are {unit} by their names, of a place nobody tells: they are put on a plane")
            return msgspec.structs.replace(reading, scale=scale, crs="metres")
    for scale in (1e-5, 1e-6, 1e-7):
        if whole and 1 < top_lat * scale <= 90 and 1 < top_lon * scale <= 180 and ("e6" not in names or scale == 1e-6):
            notes.append(f"positions are degrees times {1 / scale:,.0f}: --scale {scale:g}")
            return msgspec.structs.replace(reading, scale=scale)
    if top_lat > 2e4 and top_lon > 2e4 and max(top_lat, top_lon) <= 20_037_509:
        mercator = top_lon > 1.0e6 or top_lat > 1.0e7
        if mercator:
            notes.append("positions are metres of a projection; their size fits Web Mercator (EPSG:3857): look at the map")
            return msgspec.structs.replace(reading, crs="EPSG:3857")
        notes.append(
            "positions are metres of a projection that their numbers do not tell (UTM, say): give --crs EPSG:...; on a "
            "plane until then"
        )
    else:
        notes.append("positions are no degrees; they are taken for metres on a plane: give --crs or --scale if you know")
    return msgspec.structs.replace(reading, crs="metres")


def _units_of_time(reading: Reading, head: pa.Table, notes: list[str]) -> Reading:
    """What numbers count, and how words are written."""
    name = str(reading.time)
    if name not in head.column_names or reading.time_unit or reading.time_format:
        return reading
    column = head[name]
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = column.drop_null().to_numpy().astype(float)
        top = float(np.abs(numbers).max()) if len(numbers) else 0.0
        if DIGITS[0] <= top < DIGITS[1]:
            notes.append("times are numbers of year, month, day, hour, minute, second: --time-format %Y%m%d%H%M%S")
            return msgspec.structs.replace(reading, time_format="%Y%m%d%H%M%S")
        unit_by_size = unit_of(top)
        if unit_by_size is not None and reading.time_origin is None:
            return msgspec.structs.replace(reading, time_unit=unit_by_size)
        named = {
            "minute": "min",
            "_min": "min",
            "hour": "h",
            "_h": "h",
            "day": "D",
            "_cs": "10ms",
            "_ms": "ms",
            "_s": "s",
            "sec": "s",
        }
        told = next((u for part, u in named.items() if name.lower().endswith(part) or name.lower() == part), None)
        unit = told or "s"
        if told is None:
            unit = "D" if 1e4 < top < 1e5 and (numbers != np.floor(numbers)).any() else "s"
        origin = reading.time_origin or ("1899-12-30" if unit == "D" and 2e4 < top < 6e4 else STAND_IN)
        why = {"1899-12-30": ", as spreadsheets do", STAND_IN: ", a Monday that stands for the first day: say the right one"}
        notes.append(f"times are numbers up to {top:g}, taken as {unit} since {origin}{why.get(origin, '')}")
        return msgspec.structs.replace(reading, time_unit=unit, time_origin=origin)
    if pa.types.is_string(column.type):
        words = column.drop_null().slice(0, 5000)
        read = moments(words, None, None, None, "UTC")
        if len(words) and (read == UNREADABLE).mean() > 0.5:
            first = next(w for w, us in zip(words.to_pylist(), read, strict=True) if us == UNREADABLE)
            for written in FORMATS_OF_TIME:
                try:
                    us = moments(words, None, None, written, "UTC")
                except BadInput:
                    continue
                if (us == UNREADABLE).mean() < 0.02:
                    notes.append(f"times are written like {first!r}: --time-format {written!r}")
                    return msgspec.structs.replace(reading, time_format=written)
            share = (read == UNREADABLE).mean()
            notes.append(
                f"{share:.0%} of the times are of no one form that is known here, such as {first!r}: give --time-format, or "
                "write them alike"
            )
    return reading


FORMATS_OF_TIME = (
    "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M",
    "%Y.%m.%d %H:%M:%S", "%a %b %d %H:%M:%S %z %Y", "%Y%m%d%H%M%S", "%Y%m%d %H%M%S", "%b %d, %Y %I:%M:%S %p",
)  # fmt: skip


def _ocean(lat: float, lon: float) -> bool:
    return zone_at(float(lat), float(lon)).startswith("Etc/")
