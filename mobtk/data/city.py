"""The built-in city: seeded, synthetic, offline, with a planted truth to check answers against.

People explore and return preferentially (Song et al. 2010, https://doi.org/10.1038/nphys1760) between a home, often
a work place, and places of their own, in the rhythm of one of eight regimes. It is calibrated on published facts of
290,836 weeks in Beijing (Luo et al. 2025, https://arxiv.org/abs/2512.07314, data files of the authors): a square of 30 km
in cells of 1 km, the share of weeks spent working from the home cell, the shares of eight movement clusters and how often
each works at home, the distances of commuting; and on 5,532 days there: about 2.4 different cells and 2.4 moves a day.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
from numpy.typing import NDArray

from mobtk.contracts import SpatialMapper
from mobtk.data.cut import MONDAY, split_rows
from mobtk.data.dataset import Dataset, Info, fixed_list
from mobtk.data.funnel import Loss
from mobtk.data.traits import group, home_and_work, movement
from mobtk.errors import BadInput
from mobtk.options import call
from mobtk.plugins import registry
from mobtk.storage import PathLike, check_new_file, new_file

CRS, ORIGIN, SIDE = "EPSG:32650", (430_000.0, 4_405_000.0), 30_000.0
"""The square in metres of UTM zone 50 N, around the centre of Beijing."""

RHO, GAMMA = 0.6, 0.21
"""A person who knows S places explores with probability ``RHO * S ** -GAMMA`` (Song et al. 2010)."""

COMMUTE_KM = ([0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0], [0.9, 1.0, 1.4, 4.1, 9.0, 17.0, 24.0])
"""Quantiles of the distance from home to work where they differ."""

WORK, OUTING, EVENING, LUNCH, AWAY = "work", "outing", "evening", "lunch", "away"


@dataclass(frozen=True)
class Regime:
    """How one group of people moves.

    Args:
        name: what they are called.
        share: of all people.
        works_at_home: share of them whose work place is in their home cell.
        weekday, weekend: mean number of outings a day.
        hour: when outings begin, mean and spread over people.
        stay: mean hours of an outing.
        office: first hour of work and its length, on weekdays.
        lunch, evening: chance of a bite near work at noon, of an outing after work.
        away: chance that a night is spent elsewhere.
    """

    name: str
    share: float
    works_at_home: float
    weekday: float
    weekend: float
    hour: tuple[float, float]
    stay: float
    office: tuple[float, float] = (9.0, 9.0)
    lunch: float = 0.0
    evening: float = 0.0
    away: float = 0.0


REGIMES = (
    Regime("long days out", 0.0622, 0.909, 1.7, 1.5, (7.5, 1.0), 4.0),
    Regime("wanderers", 0.0113, 0.763, 2.2, 2.2, (10.0, 3.0), 4.0, (10.0, 6.0), 0.1, 0.3, 0.3),
    Regime("commuters", 0.1908, 0.014, 0.2, 1.5, (10.5, 1.5), 2.0, (8.5, 9.5), 0.05, 0.2),
    Regime("sociable commuters", 0.0674, 0.054, 0.15, 1.6, (11.0, 2.0), 2.5, (9.5, 9.0), 0.25, 0.45),
    Regime("home stayers", 0.5562, 0.980, 1.5, 1.5, (11.0, 3.5), 2.0),
    Regime("evening people", 0.0387, 0.838, 1.6, 1.6, (18.0, 1.5), 3.0),
    Regime("weekend travellers", 0.0447, 0.919, 1.0, 2.2, (9.5, 1.5), 4.0, away=0.05),
    Regime("late shift", 0.0287, 0.067, 0.5, 1.3, (9.0, 1.5), 2.0, (12.5, 9.5), 0.05, 0.0),
)


@dataclass(frozen=True)
class City:
    """Weeks of a city and the truth behind them.

    Args:
        person: ``(weeks,)`` whose week it is.
        week: ``(weeks,)`` the how-many-eth week of that person, from 0.
        visits: ``(weeks, 168)`` place of each hour from Monday 00:00, an index into the person's places.
        lat, lon: ``(people, places)`` where the places are, degrees; home first, then work.
        regime: ``(people,)`` index into :data:`REGIMES`.
    """

    person: NDArray[np.int64]
    week: NDArray[np.int64]
    visits: NDArray[np.int64]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    regime: NDArray[np.int64]

    def positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latitude and longitude of every hour, ``(weeks, 168)`` each."""
        return self.lat[self.person[:, None], self.visits], self.lon[self.person[:, None], self.visits]


def prepare_city(
    out: PathLike,
    *,
    weeks: int = 10_000,
    seed: int = 0,
    mapper: str = "grid",
    mapper_options: Mapping[str, Any] | None = None,
    shares: tuple[float, float, float] = (0.5, 0.1, 0.4),
    clusters: int = 8,
    replace: bool = False,
) -> Dataset:
    """Write the city as a dataset, with the planted truth in columns ``true_home``, ``true_work`` and ``regime``.

    The traits that models see are read off the sequences as they are for real data. Arguments as for
    :func:`make_city` and :func:`mobtk.prepare`; the test share is large, so that a score and its floor can be taken
    on samples of some size.
    """
    city = make_city(weeks, seed=seed)
    lat, lon = city.positions()
    entry = registry().find("mapper", mapper)
    options = dict(mapper_options or {})
    if entry.full_name == "mobtk.grid":
        size = options.get("size", 1000.0)
        side = int(np.ceil(SIDE / size)) if isinstance(size, (int, float)) and size > 0 else 1
        cell_mapper: SpatialMapper = call("mapper 'grid'", entry.load(), (CRS, ORIGIN, (side, side)), options)
    else:
        cell_mapper = call(f"mapper {mapper!r}", entry.load().fit, (lat.ravel(), lon.ravel()), options)
    cells = cell_mapper.encode(lat.ravel(), lon.ravel()).reshape(lat.shape)
    part, _ = split_rows(city.person, city.week, "user", shares, seed)
    hours = np.arange(168)
    home, work = home_and_work(cells, (hours % 24).astype(float), hours >= 120)
    n = cell_mapper.n_cells[0]
    people = len(city.regime)
    info = Info(
        name=f"built-in city, seed {seed}",
        step="1h",
        steps=168,
        steps_per_day=24,
        trait_sizes={"home": n, "work": n, "cluster": clusters, "person": people},
        sources=["mobtk.data.city"],
        licence="made by mobtk, free of any rights",
        settings={"weeks": weeks, "seed": seed, "mapper": mapper, "mapper_options": options, "shares": list(shares)},
        funnel=[Loss("made", people, cells.size, len(cells), "nothing: it is synthetic")],
    )
    true = {place: cell_mapper.encode(city.lat[:, i], city.lon[:, i])[city.person] for i, place in enumerate(("home", WORK))}
    columns = {
        "user": np.char.add("p", np.char.zfill(city.person.astype(str), 6)),
        "start": np.array(MONDAY + 7 * 86_400 * (2_600 + city.week), "datetime64[s]"),
        "split": part,
        "home": home.astype(np.int32),
        "work": work.astype(np.int32),
        "cluster": group(movement(cells, home, work, cell_mapper), part == "train", clusters, seed).astype(np.int32),
        "person": city.person.astype(np.int32),
        "true_home": true["home"],
        "true_work": true[WORK],
        "regime": city.regime[city.person],
        "cells": fixed_list(cells),
    }
    return Dataset.write(out, info, (entry.full_name, cell_mapper), [pa.table(columns)], replace=replace)


def write_points(
    out: PathLike, *, weeks: int = 10_000, every: float = 60.0, noise: float = 20.0, seed: int = 0, order: str = "user",
    replace: bool = False,
) -> int:  # fmt: skip
    """The city as it would be measured: a Parquet file of points ``user, time, lat, lon``. Returns how many.

    Args:
        out: the file.
        weeks, seed: see :func:`make_city`.
        every: seconds between the points of a person.
        noise: metres that a position is off, one standard deviation to the north and to the east.
        order: of the rows: by ``user``, or by ``time`` as a network records them.
        replace: replace an existing file.

    Raises:
        BadInput: for what is no city.
    """
    if order not in ("user", "time") or not 1 <= every <= 3600 or noise < 0:
        raise BadInput(
            f"points come every 1 to 3600 s, with noise of 0 m or more, by user or time; not {every:g}, {noise:g}, {order!r}"
        )
    check_new_file(out, replace)
    city = make_city(weeks, seed=seed)
    rng = np.random.default_rng((seed, 1))
    per_week = int(7 * 86_400 // every)
    seconds = (np.arange(per_week) * every).astype(np.int64)
    begin = MONDAY + 7 * 86_400 * 2_600 - 8 * 3600  # Beijing is eight hours ahead of UTC
    names = np.char.add("p", np.char.zfill(np.arange(len(city.regime)).astype(str), 6)).astype(object)
    schema = pa.schema(
        [("user", pa.string()), ("time", pa.timestamp("ms", "UTC")), ("lat", pa.float64()), ("lon", pa.float64())]
    )
    written = 0

    def table(rows: NDArray[np.int64], steps: NDArray[np.int64]) -> pa.Table:
        """Points of some weeks at some moments, week by week."""
        person, visit = np.repeat(city.person[rows], len(steps)), city.visits[rows][:, seconds[steps] // 3600].ravel()
        lat, lon = city.lat[person, visit], city.lon[person, visit]
        metres = rng.normal(0, noise, (2, len(lat)))
        lat = lat + metres[0] / 111_195
        lon = lon + metres[1] / (111_195 * np.cos(np.radians(lat)))
        time = (begin + 7 * 86_400 * np.repeat(city.week[rows], len(steps)) + np.tile(seconds[steps], len(rows))) * 1000
        user = pa.DictionaryArray.from_arrays(pa.array(person.astype(np.int32)), pa.array(names, pa.string()))
        return pa.table(
            [user.cast(pa.string()), pa.array(time).cast(schema.field("time").type), lat.round(6), lon.round(6)],
            schema=schema,
        )

    with new_file(out) as draft, pq.ParquetWriter(draft, schema, compression="zstd", compression_level=1) as sink:
        if order == "user":
            for rows in np.array_split(np.arange(weeks), max(1, weeks * per_week // 1_000_000)):
                sink.write_table(table(rows, np.arange(per_week)))
                written += len(rows) * per_week
        else:
            for week in range(int(city.week.max()) + 1):
                rows = np.flatnonzero(city.week == week)
                for steps in np.array_split(np.arange(per_week), max(1, len(rows) * per_week // 1_000_000)):
                    block = table(rows, steps)
                    sink.write_table(block.take(np.argsort(block["time"].to_numpy(), kind="stable")))
                    written += len(rows) * len(steps)
    return written


def make_city(weeks: int = 10_000, *, seed: int = 0, weeks_per_person: int = 4) -> City:
    """Draw a city. The same arguments give the same city; ten thousand weeks take a second or two.

    Args:
        weeks: how many weeks in all.
        seed: of everything random.
        weeks_per_person: how many weeks are observed of one person (the last may have fewer).

    Raises:
        BadInput: less than one week.
    """
    if weeks < 1 or weeks_per_person < 1 or seed < 0:
        raise BadInput(f"a city needs a week at least and a seed of 0 or more, not weeks={weeks}, seed={seed}")
    rng = np.random.default_rng(seed)
    people = -(-weeks // weeks_per_person)
    regime = rng.choice(len(REGIMES), people, p=_column("share") / _column("share").sum())
    memory = _Memory(rng, people)
    home = memory.draw_homes()
    at_home = rng.random(people) < _column("works_at_home")[regime]
    work = np.where(at_home[:, None], home, memory.draw_works(home))
    memory.settle(home, work)

    habits = _Habits(rng, regime, commutes=~at_home)
    blocks = [_one_week(rng, habits, memory) for _ in range(weeks_per_person)]
    visits = np.stack(blocks, axis=1).reshape(people * weeks_per_person, 168)[:weeks]
    lat, lon = memory.degrees()
    person = np.repeat(np.arange(people), weeks_per_person)[:weeks]
    week = np.tile(np.arange(weeks_per_person), people)[:weeks]
    return City(person, week, visits, lat, lon, regime)


def _column(name: str) -> NDArray[np.float64]:
    return np.array([getattr(r, name) for r in REGIMES], float)


class _Habits:
    """What distinguishes a person within a regime: the hours they keep and how often they go out."""

    def __init__(self, rng: np.random.Generator, regime: NDArray[np.int64], commutes: NDArray[np.bool_]) -> None:
        n = len(regime)
        hour, office = _column("hour"), _column("office")
        self.commutes = commutes
        self.start = office[regime, 0] + rng.normal(0, 0.7, n)
        self.length = office[regime, 1] + rng.normal(0, 0.7, n)
        self.hour = hour[regime, 0] + rng.normal(0, 1, n) * hour[regime, 1]
        self.stay = _column("stay")[regime] * rng.lognormal(0, 0.2, n)
        zeal = rng.lognormal(-0.02, 0.2, n)
        self.outings = {True: _column("weekend")[regime] * zeal, False: _column("weekday")[regime] * zeal}
        self.lunch, self.evening, self.away = (_column(c)[regime] for c in (LUNCH, EVENING, AWAY))


class _Memory:
    """The places each person knows, in metres from the south-west corner, and how often they went there."""

    def __init__(self, rng: np.random.Generator, people: int, capacity: int = 48) -> None:
        self.rng, self.people = rng, people
        self.xy = np.zeros((people, capacity, 2))
        self.counts = np.zeros((people, capacity))
        self.known = np.full(people, 2)
        centres = rng.uniform(0.2, 0.8, (9, 2)) * SIDE
        weight, spread = rng.dirichlet(np.full(9, 2.0)), rng.uniform(2_500, 6_000, 9)
        grid = (np.arange(30) + 0.5) * SIDE / 30
        self.cells = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
        distance = np.linalg.norm(self.cells[:, None] - centres, axis=-1)
        density = (weight * np.exp(-0.5 * (distance / spread) ** 2) / spread**2).sum(1)
        self.live = density * rng.lognormal(0, 0.6, len(density))
        self.attract = density**1.3 * rng.lognormal(0, 1.0, len(density))

    def draw_homes(self) -> NDArray[np.float64]:
        cell = self.rng.choice(len(self.cells), self.people, p=self.live / self.live.sum())
        return self._within(cell)

    def draw_works(self, home: NDArray[np.float64]) -> NDArray[np.float64]:
        """A cell at about the distance a commuter has, busy ones first, never the home cell."""
        work = np.empty_like(home)
        for block in np.array_split(np.arange(self.people), max(1, self.people // 2000)):
            km = np.interp(self.rng.random(len(block)), *COMMUTE_KM)
            d = np.linalg.norm(self.cells - self._centre(home[block])[:, None], axis=-1) / 1000
            near = np.exp(-0.5 * ((d - km[:, None]) / (0.25 + 0.05 * km[:, None])) ** 2) + 1e-12
            weight = self.attract * near * (d > 0.5) / (1 + d)
            ladder = np.cumsum(weight, axis=1)
            cell = (ladder < self.rng.random(len(block))[:, None] * ladder[:, -1:]).sum(1)
            work[block] = self._within(np.minimum(cell, len(self.cells) - 1))
        return work

    def settle(self, home: NDArray[np.float64], work: NDArray[np.float64]) -> None:
        self.xy[:, 0], self.xy[:, 1] = home, work

    def outing(self, who: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where these people go: a place of theirs again, or a new one; an index into their places."""
        known = self.known[who]
        full = known >= self.xy.shape[1]
        explores = (known == 2) | (self.rng.random(len(who)) < RHO * np.maximum(known - 1, 1) ** -GAMMA)
        explores &= ~full
        score = np.log(np.maximum(self.counts[who], 1e-12)) + self.rng.gumbel(size=(len(who), self.xy.shape[1]))
        place = np.where(explores, known, np.where(known > 2, score.argmax(1), 0))
        new = who[explores]
        self.xy[new, known[explores]] = self._explore(new)
        self.known[new] += 1
        self.counts[who, place] += 1
        return place

    def _explore(self, who: NDArray[np.int64]) -> NDArray[np.float64]:
        """A new place: a jump from home with a heavy tail, the busiest of a few candidates."""
        candidates = 6
        r = 700 * (1 - self.rng.random((len(who), candidates))) ** (-1 / 1.1)
        angle = self.rng.uniform(0, 2 * np.pi, (len(who), candidates))
        r = np.minimum(r, SIDE / 2)
        xy = self.xy[who, 0][:, None] + r[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        xy = np.clip(np.where((xy < 0) | (xy >= SIDE), 2 * self.xy[who, 0][:, None] - xy, xy), 0, SIDE - 1)
        cell = (xy[..., 1] // 1000).astype(int) * 30 + (xy[..., 0] // 1000).astype(int)
        best = (np.log(self.attract[cell]) + self.rng.gumbel(size=cell.shape)).argmax(1)
        return xy[np.arange(len(who)), best]

    def degrees(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        to_degrees = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(ORIGIN[0] + self.xy[..., 0], ORIGIN[1] + self.xy[..., 1])
        return lat, lon

    def _centre(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return (xy // 1000 + 0.5) * 1000

    def _within(self, cell: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.cells[cell] + self.rng.uniform(-490, 490, (len(cell), 2))


def _one_week(rng: np.random.Generator, habits: _Habits, memory: _Memory) -> NDArray[np.int64]:
    """Hours of a week, place of each, for everybody; later calls know what earlier ones explored."""
    n = memory.people
    week = np.zeros((n, 168), np.int64)
    hours = np.arange(168)

    def fill(who: NDArray[np.int64], start: NDArray[np.float64], length: NDArray[np.float64], place: Any) -> None:
        begin = np.round(start).astype(int)
        span = np.maximum(1, np.round(length)).astype(int)
        inside = (hours - begin[:, None]) % 168 < span[:, None]
        week[who] = np.where(inside, np.broadcast_to(place, len(who))[:, None], week[who])

    for day in range(7):
        weekend = day >= 5
        for slot in range(3):
            # as many outings as the habit says on average, never more than three, the first the surest
            chance = np.clip(habits.outings[weekend] - slot, 0.02, 0.93)
            who = np.flatnonzero(rng.random(n) < chance)
            start = 24 * day + np.clip(habits.hour[who] + 4.0 * slot + rng.normal(0, 1.0, len(who)), 6, 22)
            fill(who, start, habits.stay[who] * rng.gamma(4, 0.25, len(who)), memory.outing(who))
        who = np.flatnonzero(rng.random(n) < habits.away)
        fill(who, np.full(len(who), 24.0 * day + 20), np.full(len(who), 12.0), memory.outing(who))
        if not weekend:
            office = np.flatnonzero(habits.commutes & (rng.random(n) < 0.95))
            start = 24 * day + habits.start + rng.normal(0, 0.4, n)
            length = habits.length + rng.normal(0, 0.5, n)
            fill(office, start[office], length[office], 1)
            lunch = office[rng.random(len(office)) < habits.lunch[office]]
            fill(lunch, start[lunch] + 4, np.ones(len(lunch)), memory.outing(lunch))
            evening = office[rng.random(len(office)) < habits.evening[office]]
            fill(evening, (start + length)[evening], 1 + rng.gamma(2, 0.7, len(evening)), memory.outing(evening))
    return week
