"""Where people stay and how they move between: stay points, places, trips, and where home and work are.

Tables come in the order of users and times; times are UTC, distances metres, positions WGS84 degrees.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from msgspec import Struct
from numpy.typing import NDArray

from mobtk import kernels
from mobtk._version import __version__
from mobtk.data.clean import Rules, in_order
from mobtk.data.formats import Reading
from mobtk.data.funnel import Loss
from mobtk.data.moments import check_zone, local_seconds
from mobtk.data.points import Points, user_rank
from mobtk.data.shards import Workers, work_folder
from mobtk.data.tracks import Tracks, collect, plan
from mobtk.errors import BadInput
from mobtk.geo import EARTH_KM
from mobtk.storage import PathLike, check_replaceable, new_folder, write_text

METHODS = ("distance", "speed", "cluster")
NIGHT, DAY = (0, 8), (10, 18)
"""Hours in which one is at home, and, from Monday to Friday, at work, as M-STAR takes them (Luo et al. 2025)."""


class Staying(Struct, frozen=True):
    """What a stay is.

    Args:
        method: ``distance``: within ``metres`` of its first point (Li et al. 2008, https://doi.org/10.1145/1463434.1463477);
            ``speed``: moves slower than ``kmh`` only; ``cluster``: successive points of one DBSCAN cluster of the user's
            points, with reach ``metres``.
        metres: see there.
        minutes: a stay lasts so long at least.
        gap: minutes without a point that end a stay, since nobody knows where the person was.
        kmh: see there.
        cut: whether a stay that a gap or the end of the data cuts off counts, up to its last point. ``False`` drops it, as
            trackintel does: a night at home goes when the phone is switched off in the morning.
    """

    method: str = "distance"
    metres: float = 100.0
    minutes: float = 5.0
    gap: float = 15.0
    kmh: float = 2.0
    cut: bool = True

    def check(self) -> None:
        """Refuse what is no definition."""
        if self.method not in METHODS:
            raise BadInput(f"stays are found by {', '.join(METHODS)}, not {self.method!r}")
        if min(self.metres, self.minutes, self.gap, self.kmh) <= 0:
            raise BadInput("metres, minutes, gap and speed of a stay are above 0")


def find_stays(points: Points | pd.DataFrame, how: Staying = Staying()) -> pd.DataFrame:  # noqa: B008
    """Stay points: ``user, time, end, lat, lon, points``, and ``first``, the row of its first point among the sorted ones.

    A stay ends when the first point outside is seen, or with its last point where it is cut off. Its position is the mean
    direction of its points. With ``Staying(cut=False)`` the method ``distance`` gives the stays of trackintel's
    ``generate_staypoints(method="sliding")`` (Martin et al. 2023, https://doi.org/10.1016/j.compenvurbsys.2023.101938).

    Args:
        points: or a table of ``user, time, lat, lon``.
        how: what a stay is.
    """
    how.check()
    points = in_order(_points(points))
    us = 60_000_000
    least, gap = int(how.minutes * us), int(how.gap * us)
    user, time, lat, lon = points.user, points.time, points.lat, points.lon
    if how.method == "distance":
        begin, stop, ends = kernels.stays_by_distance(user, time, lat, lon, how.metres, least, gap, how.cut, how.cut)
    else:
        if how.method == "speed":
            run = kernels.slow_runs(user, time, lat, lon, how.kmh / 3.6, gap)
        else:
            run = _clusters(user, lat, lon, how.metres, 3)
        begin, stop = _runs(user, time, run, gap)
        long = time[stop - 1] - time[begin] >= least
        begin, stop = begin[long], stop[long]
        ends = stop - 1
    where = _centres(lat, lon, begin, stop)
    table = pd.DataFrame(
        {
            "user": points.names[user[begin]],
            "time": pd.to_datetime(time[begin], unit="us", utc=True),
            "end": pd.to_datetime(time[ends], unit="us", utc=True),
            "lat": where[0],
            "lon": where[1],
            "points": stop - begin,
            "first": begin,
        }
    )
    table["user"] = table["user"].astype(object)
    return table


def find_places(stays: pd.DataFrame, metres: float = 100.0, least: int = 1) -> pd.DataFrame:
    """The stays with a column ``place``: which of the user's places each is at, numbered by first visit, -1 for none.

    Places are the DBSCAN clusters of a user's stays (Ester et al. 1996) with reach ``metres`` and ``least`` stays.
    """
    codes, _ = pd.factorize(stays["user"])
    place = _clusters(codes.astype(np.int32), stays["lat"].to_numpy(), stays["lon"].to_numpy(), metres, least)
    return stays.assign(place=place)


def find_trips(stays: pd.DataFrame, points: Points | pd.DataFrame | None = None) -> pd.DataFrame:
    """What lies between successive stays of a user.

    Columns ``user, time, end, from_place, to_place, km`` (the straight line), and where points are given ``path_km`` along
    them and ``longest_gap`` (minutes without a point, to judge by).
    """
    user = stays["user"].to_numpy()
    i = np.flatnonzero(user[1:] == user[:-1]) if len(stays) else np.empty(0, int)
    lat, lon = stays["lat"].to_numpy(), stays["lon"].to_numpy()
    trips = pd.DataFrame(
        {
            "user": user[i],
            "time": stays["end"].to_numpy()[i],
            "end": stays["time"].to_numpy()[i + 1],
            "km": kernels.distance(lat[i], lon[i], lat[i + 1], lon[i + 1]) / 1000,
        }
    )
    if "place" in stays:
        place = stays["place"].to_numpy()
        trips = trips.assign(from_place=place[i], to_place=place[i + 1])
    if points is not None:
        points = in_order(_points(points))
        first = (stays["first"] + stays["points"] - 1).to_numpy()[i]
        last = stays["first"].to_numpy()[i + 1]
        step = np.diff(points.time, append=points.time[-1:]) / 6e7
        bounds = np.column_stack([first, last]).ravel()
        gaps = np.maximum.reduceat(step, bounds)[::2] if len(bounds) else np.empty(0)
        trips = trips.assign(path_km=kernels.path_metres(first, last, points.lat, points.lon) / 1000, longest_gap=gaps)
    return trips


def find_home_and_work(stays: pd.DataFrame, timezone: str = "UTC") -> pd.DataFrame:
    """Where each user lives and works, and how sure that is; one row a user.

    For home: of each night (0-8 h) the place with most hours; home is where most nights are. Work is the same of weekdays,
    10-18 h, among the other places. ``*_confidence`` is the lower end of the 90 % Wilson interval of the share of observed
    nights (days) spent mostly there, so that one night says little; it is 0 where none is observed. ``*_days`` counts them.

    Unlike trackintel's ``osna_method``, the hours of a stay count where they fall, and not all in the part of the day that
    holds its middle: a night from 18 h to 7 h counts as night.

    Args:
        stays: with ``place``.
        timezone: where the people are.
    """
    if "place" not in stays:
        raise BadInput("home and work want stays with places; find them first with find_places")
    codes, users = pd.factorize(stays["user"])
    place = stays["place"].to_numpy()
    start, end = (local_seconds(_us(stays[c]), timezone) for c in ("time", "end"))
    out = pd.DataFrame({"user": np.asarray(users, object)})
    taken = np.full(len(users), -2)
    for what, (begin, stop), weekdays in (("home", NIGHT, False), ("work", DAY, True)):
        table = _presence(codes, place, start, end, begin, stop, weekdays)
        table = table[(table["place"] >= 0) & (table["place"] != taken[table["user"]])]
        days = table.groupby("user")["day"].nunique().reindex(range(len(users)), fill_value=0).to_numpy()
        best = table.sort_values(["user", "day", "seconds", "place"], ascending=[True, True, False, True])
        best = best.drop_duplicates(["user", "day"])
        votes = best.groupby(["user", "place"]).agg(n=("day", "size"), seconds=("seconds", "sum")).reset_index()
        votes = votes.sort_values(["user", "n", "seconds", "place"], ascending=[True, False, False, True])
        votes = votes.drop_duplicates("user").set_index("user").reindex(range(len(users)))
        out[f"{what}_place"] = votes["place"].fillna(-1).astype(int).to_numpy()
        n = votes["n"].fillna(0).to_numpy()
        out[f"{what}_days"] = n.astype(int)
        out[f"{what}_confidence"] = _wilson(n, days)
        taken = out[f"{what}_place"].to_numpy()
    centres = stays[stays["place"] >= 0].groupby(["user", "place"])[["lat", "lon"]].mean()
    for what in ("home", "work"):
        at = centres.reindex(pd.MultiIndex.from_arrays([out["user"], out[f"{what}_place"]]))
        out[f"{what}_lat"], out[f"{what}_lon"] = at["lat"].to_numpy(), at["lon"].to_numpy()
    return out


def visits(
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    reading: Reading | None = None,
    rules: Rules | None = None,
    staying: Staying | None = None,
    place_metres: float = 100.0,
    timezone: str = "UTC",
    replace: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """A folder of ``stays``, ``trips``, ``places`` and ``people`` (home and work) in Parquet, of files of points.

    ``mobtk data visits`` does the same; ``mobtk data prepare FOLDER/stays.parquet --step event`` makes a dataset of it.

    Many points go through a hidden folder beside ``out`` in which the same call goes on after a kill; ``workers`` and
    ``scheduler`` share their reading and sorting, as in ``prepare``.

    Returns:
        What ``visits.toml`` holds: counts, settings, funnel.
    """
    staying, rules = staying or Staying(), rules or Rules()
    staying.check()
    check_zone(timezone)
    crew = Workers(workers, scheduler)
    source = plan(files, reading or Reading(format="auto"), rules, many=crew.many)
    inputs = [f for f, _, _ in source.files]
    check_replaceable(out, replace, inputs)
    parts = work_folder(Path(out), source) if source.bits or crew.many else nullcontext()
    with crew, parts as work, new_folder(out, replace=replace, inputs=inputs) as folder:
        tracks = Tracks(source, work)
        collect(tracks, crew)
        funnel = tracks.funnel()
        sinks: dict[str, pq.ParquetWriter] = {}
        counts = dict.fromkeys(("stays", "trips", "places", "people"), 0)
        staying_users = staying_points = 0
        for shard in range(tracks.shards):
            points = tracks.points(shard)
            stays = find_places(find_stays(points, staying), place_metres)
            trips = find_trips(stays, points)
            staying_users += stays["user"].nunique()
            staying_points += int(stays["points"].sum())
            known = stays[stays["place"] >= 0]
            places = known.groupby(["user", "place"], sort=False).agg(
                lat=("lat", "mean"), lon=("lon", "mean"), stays=("time", "size"), first=("time", "min"), last=("end", "max")
            )
            found = {
                "stays": stays.drop(columns="first"),
                "trips": trips,
                "places": places.reset_index(),
                "people": find_home_and_work(stays, timezone),
            }
            for name, table in found.items():
                counts[name] += len(table)
                if name not in sinks and (len(table) or shard + 1 == tracks.shards):
                    schema = _schema(table)
                    sinks[name] = pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
                if name in sinks:
                    rank = user_rank(points.names)[pd.Index(points.names).get_indexer(table["user"])]
                    ordered = table.iloc[np.argsort(rank, kind="stable")]
                    sinks[name].write_table(pa.Table.from_pandas(ordered, schema=sinks[name].schema, preserve_index=False))
        for sink in sinks.values():
            sink.close()
        if not counts["stays"]:
            raise BadInput(
                f"no user stays within {staying.metres:g} m for {staying.minutes:g} minutes; try more --metres, fewer "
                "--minutes or a longer --gap"
            )
        why = f"{funnel[-1].points - staying_points:,} points are on the way"
        funnel.append(Loss(f"{counts['stays']:,} stays", staying_users, staying_points, why=why))
        told = {
            "counts": counts,
            "timezone": timezone,
            "staying": msgspec.to_builtins(staying),
            "place_metres": place_metres,
            "sources": inputs[:100],
            "mobtk": __version__,
            "funnel": msgspec.to_builtins(funnel),
        }
        write_text(folder / "visits.toml", tomli_w.dumps(told))
    return {**told, "path": str(Path(out))}


def _points(points: Points | pd.DataFrame) -> Points:
    if isinstance(points, Points):
        return points
    missing = [c for c in ("user", "time", "lat", "lon") if c not in points]
    if missing:
        raise BadInput(f"the table has no column {missing[0]!r}; points have user, time, lat and lon")
    codes, names = pd.factorize(points["user"])
    lat, lon = (points[c].to_numpy(np.float64) for c in ("lat", "lon"))
    return Points(np.asarray(names.astype(str), object), codes.astype(np.int32), _us(points["time"]), lat, lon)


def _us(times: pd.Series) -> NDArray[np.int64]:
    """Microseconds since 1970 in UTC."""
    return np.asarray(pd.to_datetime(times, utc=True).dt.tz_localize(None).astype("datetime64[us]").astype(np.int64))


def _runs(
    user: NDArray[np.int32], time: NDArray[np.int64], run: NDArray[np.int64], gap: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First rows and rows after the last of successive points with one number, not -1, of one user and without a gap."""
    if not len(user):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    fresh = np.ones(len(user), bool)
    fresh[1:] = (user[1:] != user[:-1]) | (run[1:] != run[:-1]) | (np.diff(time) > gap)
    begin = np.flatnonzero(fresh)
    stop = np.append(begin[1:], len(user))
    keep = run[begin] >= 0
    return begin[keep], stop[keep]


def _clusters(
    user: NDArray[np.int32], lat: NDArray[np.float64], lon: NDArray[np.float64], metres: float, least: int
) -> NDArray[np.int64]:
    """DBSCAN of each user's positions, numbered by first appearance; -1 is noise."""
    from sklearn.cluster import DBSCAN

    model = DBSCAN(eps=metres / (EARTH_KM * 1000), min_samples=least, metric="haversine", algorithm="ball_tree")
    out = np.full(len(user), -1, np.int64)
    xy = np.radians(np.column_stack([lat, lon])) if len(user) else np.empty((0, 2))
    for rows in _of_each(user):
        distinct, index, count = np.unique(xy[rows], axis=0, return_inverse=True, return_counts=True)
        label = model.fit(distinct, sample_weight=count).labels_[index.ravel()]
        first, number = np.unique(label, return_inverse=True)
        seen = np.array([np.argmax(label == value) if value >= 0 else -1 for value in first])
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(seen)] = np.arange(len(first)) - (first[0] < 0)
        out[rows] = rank[number]
    return out


def _of_each(user: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Rows of each user, in order."""
    order = np.argsort(user, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(user[order])) + 1) if len(user) else []


def _centres(
    lat: NDArray[np.float64], lon: NDArray[np.float64], begin: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean direction of the latitudes and the longitudes of some rows, right across the antimeridian too."""
    if not len(begin):
        return np.empty(0), np.empty(0)
    out = []
    bounds = np.column_stack([begin, stop]).ravel()
    for angle in (np.radians(lat), np.radians(lon)):
        both = [np.add.reduceat(np.append(f(angle), 0.0), bounds)[::2] / (stop - begin) for f in (np.sin, np.cos)]
        out.append(np.degrees(np.arctan2(*both)))
    return out[0], out[1]


def _presence(
    user: NDArray, place: NDArray, start: NDArray, end: NDArray, begin: int, stop: int, weekdays: bool
) -> pd.DataFrame:
    """Seconds of each user at each place in a part of each day: ``user, day, place, seconds``."""
    first, last = start // 86_400, end // 86_400
    days = last - first + 1
    row = np.repeat(np.arange(len(user)), days)
    day = np.arange(days.sum()) - np.repeat(np.cumsum(days) - days, days) + first[row]
    seconds = np.minimum(end[row], day * 86_400 + stop * 3600) - np.maximum(start[row], day * 86_400 + begin * 3600)
    keep = seconds > 0
    if weekdays:
        keep &= (day + 3) % 7 < 5  # the epoch was a Thursday
    table = pd.DataFrame({"user": user[row], "day": day, "place": place[row], "seconds": seconds})[keep]
    return table.groupby(["user", "day", "place"], as_index=False)["seconds"].sum()


def _wilson(hits: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower end of the 90 % interval of a share (Wilson 1927)."""
    z, n = 1.6449, np.maximum(of, 1)
    p = hits / n
    low = (p + z * z / (2 * n) - z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return np.where(of > 0, np.maximum(low, 0), 0.0)


def _schema(table: pd.DataFrame) -> pa.Schema:
    """Of a table that may be empty."""
    schema = pa.Schema.from_pandas(table, preserve_index=False)
    return pa.schema([pa.field("user", pa.string()) if f.name == "user" else f for f in schema])


@dataclass
class Visits:
    """A folder that :func:`visits` wrote.

    Args:
        path: the folder.
    """

    path: Path

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if not (self.path / "visits.toml").is_file():
            raise BadInput(f"{self.path} is no folder of visits (it has no visits.toml); make one with: mobtk data visits")

    def table(self, name: str) -> pd.DataFrame:
        """One of ``stays``, ``trips``, ``places``, ``people``."""
        return pd.read_parquet(self.path / f"{name}.parquet")
