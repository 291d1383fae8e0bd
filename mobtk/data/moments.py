"""Times of any kind as microseconds since 1970 in UTC, and those as local wall-clock time."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mobtk import kernels
from mobtk.data.points import MISSING, UNREADABLE
from mobtk.errors import BadInput

UNITS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6, "min": 6e7, "h": 3.6e9, "D": 8.64e10}
"""Microseconds of a unit."""
FIRST, LAST = -62_135_000_000_000_000, 253_402_000_000_000_000
"""The years 1 to 9999, which calendars know; beyond them nothing is a time."""


def moments(
    times: pa.ChunkedArray | pa.Array, unit: str | None, origin: str | None, written: str | None, naive: str
) -> NDArray[np.int64]:
    """Microseconds since 1970 in UTC; missing and unreadable ones by their own values.

    Args:
        times: timestamps, dates, numbers or words.
        unit: what numbers count.
        origin: the moment from which they do.
        written: format of words, as for ``strptime``.
        naive: zone of times without an offset.

    Raises:
        BadInput: unit, origin or format is none.
    """
    kind = times.type
    if pa.types.is_dictionary(kind):
        times, kind = pc.cast(times, kind.value_type), kind.value_type
    given = (
        pc.is_valid(times).to_numpy(zero_copy_only=False) if isinstance(times, pa.Array) else pc.is_valid(times).to_numpy()
    )
    if pa.types.is_null(kind):
        return np.full(len(times), MISSING)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        us = pc.cast(times, pa.timestamp("us", tz=kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
        values = pc.fill_null(pc.cast(us, pa.int64()), MISSING)
        values = np.asarray(values.to_numpy(), np.int64)
        if len(values) and not (values.min() >= FIRST and values.max() <= LAST):
            values = np.where((values >= FIRST) & (values <= LAST) | (values == MISSING), values, UNREADABLE)
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        return values if zoned or naive == "UTC" else _from_zone(values, naive)
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and written is None:
        return _from_numbers(times, given, unit, origin)
    if unit is None or written is not None:
        return _from_words(times, given, written, naive)
    # numbers among words: one word that is none makes a whole block of a text words
    numbers = pd.to_numeric(pc.cast(times, pa.string()).to_pandas(), errors="coerce").to_numpy(np.float64)
    some = np.isfinite(numbers)
    us = _from_numbers(pa.array(np.where(some, numbers, 0.0)), given, unit, origin)
    return us if some.all() else np.where(some, us, _from_words(times, given, written, naive))


def _from_numbers(
    times: pa.ChunkedArray | pa.Array, given: NDArray[np.bool_], unit: str | None, origin: str | None
) -> NDArray[np.int64]:
    if unit is None:
        raise BadInput("say what the numbers of the times count with --time-unit (ns, us, ms, s, min, h, D)")
    factor = unit_us(unit)
    start = origin_us(origin)
    if pa.types.is_integer(times.type) and factor >= 1 and factor == int(factor):
        values = np.asarray(pc.fill_null(times, 0).to_numpy())
        about = values.astype(np.float64) * factor + start
        fits = (about > FIRST) & (about < LAST)
        if not fits.all():
            values = np.where(fits, values, 0)
        whole = values.astype(np.int64) * np.int64(factor) + start
        return whole if given.all() and fits.all() else np.where(given, np.where(fits, whole, UNREADABLE), MISSING)
    real = np.asarray(pc.cast(times, pa.float64(), safe=False).to_numpy(), np.float64) * factor
    with np.errstate(invalid="ignore"):
        fits = (real + start > FIRST) & (real + start < LAST)
        missing = ~given | np.isnan(real)
    return np.where(missing, MISSING, np.where(fits, np.rint(np.where(fits, real, 0)).astype(np.int64) + start, UNREADABLE))


def _from_words(
    times: pa.ChunkedArray | pa.Array, given: NDArray[np.bool_], written: str | None, naive: str
) -> NDArray[np.int64]:
    words = pc.cast(times, pa.string()).to_pandas()
    given = given & (words.str.strip() != "").to_numpy(bool, na_value=False)
    try:
        if written is None and naive != "UTC":
            zoned = words.str.contains(r"(?:[zZ]|[+-]\d\d(?::?\d\d)?)$", na=False).to_numpy() & words.str.contains(
                ":", na=False
            ).to_numpy(bool)
        else:
            zoned = np.zeros(len(words), bool)
        read = pd.to_datetime(words, utc=True, errors="coerce", format=written or "ISO8601")
    except ValueError as error:
        raise BadInput(f"--time-format {written!r} is no format of strptime: {str(error).splitlines()[0]}") from None
    good = read.notna().to_numpy()
    us = read.dt.tz_localize(None).astype("datetime64[us]").astype(np.int64).to_numpy()
    if naive != "UTC" and not (written and "%z" in written):
        us = np.where(zoned | ~good, us, _from_zone(us, naive))
    return np.where(good, us, np.where(given, UNREADABLE, MISSING))


def unit_us(unit: str) -> float:
    """Microseconds of a unit of time or a duration."""
    if unit in UNITS:
        return UNITS[unit]
    try:
        factor = pd.Timedelta(unit).total_seconds() * 1e6
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise BadInput(f"--time-unit {unit!r} is not one of {', '.join(UNITS)}, nor a duration such as 10ms")
    return factor


DIGITS = (1.9e13, 2.2e13)
"""Numbers between these are years, months, days, hours, minutes and seconds written one after the other."""


def unit_of(largest: float) -> str | None:
    """What numbers up to this count if they count from 1970 to about now, where their size tells."""
    for unit, low, high in (("s", 1e8, 1e10), ("ms", 1e11, 1e13), ("us", 1e14, 1e16), ("ns", 1e17, 1e19)):
        if low <= largest < high and not DIGITS[0] <= largest < DIGITS[1]:
            return unit
    return None


def origin_us(origin: str | None) -> int:
    """Microseconds since 1970 of the moment from which numbers count."""
    if origin is None:
        return 0
    try:
        start = pd.Timestamp(origin)
    except ValueError:
        raise BadInput(f"--time-origin {origin!r} is no moment; give one such as 2012-04-03T17:59Z") from None
    start = start.tz_convert("UTC").tz_localize(None) if start.tzinfo else start
    return int(start.to_datetime64().astype("datetime64[us]").astype(np.int64))


def check_zone(name: str, option: str = "--timezone") -> None:
    """Refuse a name that is no time zone."""
    try:
        pd.Timestamp(0, tz=name)
    except Exception:
        raise BadInput(f"timezone {name!r} is unknown; give {option} an IANA name such as Asia/Shanghai") from None


def local_seconds(us: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """Local wall-clock seconds since 1970 of moments in UTC."""
    if zone == "UTC" or not len(us):
        return us // 1_000_000
    first, last = int(us.min()) // 1_000_000, int(us.max()) // 1_000_000
    if first < MODERN or last - first > 40 * 366 * 86_400 or len(us) < 10_000:
        return _local(us, zone)
    first -= first % QUARTER
    quarters = np.arange(first, last + 2 * QUARTER, QUARTER)
    offsets = _local(quarters * 1_000_000, zone) - quarters
    local = kernels.add_offsets(us, first, QUARTER, offsets)
    for i in np.flatnonzero(np.diff(offsets)):  # some clocks were changed in the middle of a quarter, as at 00:01
        within = (us >= quarters[i] * 1_000_000) & (us < quarters[i + 1] * 1_000_000)
        local[within] = _local(us[within], zone)
    return local


QUARTER = 900
"""Seconds of a quarter of an hour, within which a clock is rarely changed."""
MODERN = 3 * 366 * 86_400
"""1973, in seconds since 1970."""


def _local(us: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    moments = pd.DatetimeIndex(us.view("datetime64[us]"))
    local = moments.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return np.asarray(local.as_unit("us").asi8) // 1_000_000


def _from_zone(local: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """Moments in UTC of wall-clock times; of a repeated hour the first, of a skipped one the hour after."""
    good = local > UNREADABLE
    index = pd.DatetimeIndex(np.where(good, local, 0).view("datetime64[us]"))
    utc = in_zone(index, zone).tz_convert("UTC")
    return np.where(good, utc.tz_localize(None).as_unit("us").asi8, local)


def in_zone(local: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    """Wall-clock times with their zone; of a repeated hour the first, of a skipped one the hour after."""
    return local.tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent=pd.Timedelta("1h"))


def zone_at(lat: float, lon: float) -> str:
    """The time zone at a position."""
    from tzfpy import get_tz

    return str(get_tz(lon, lat) or "Etc/UTC")
