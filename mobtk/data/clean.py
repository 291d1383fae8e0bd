"""Which points are kept, and the count of those that are not: rules for a row by itself, and for a user's track."""

import numpy as np
import pandas as pd
from msgspec import Struct
from numpy.typing import NDArray

from mobtk import kernels
from mobtk.data.moments import origin_us
from mobtk.data.points import MISSING, UNREADABLE, Points
from mobtk.errors import BadInput


class Rules(Struct, frozen=True):
    """What a point must be to stay.

    Args:
        bounds: south, west, north and east, degrees.
        since, until: the first moment and the one after the last, ISO 8601, UTC if without an offset.
        max_accuracy: metres; points with a worse accuracy go.
        max_speed: km/h; points that cannot be reached so from the last one kept go.
        trim: seconds at both ends of a track whose points go.
        track_gap: seconds without a point that end a track.
        visits: whether a point is a visit: two at one moment are two unless they are at one position.
    """

    bounds: tuple[float, float, float, float] | None = None
    since: str | None = None
    until: str | None = None
    max_accuracy: float | None = None
    max_speed: float | None = None
    trim: float = 0.0
    track_gap: float = 3600.0
    visits: bool = False

    def check(self) -> None:
        """Refuse what is no rule."""
        for name in ("max_accuracy", "max_speed"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise BadInput(f"--{name.replace('_', '-')} is above 0, not {value:g}")
        if self.trim < 0 or self.track_gap <= 0:
            raise BadInput("--trim is a duration of 0 or more, and --track-gap one above 0")
        if self.bounds is not None:
            south, west, north, east = self.bounds
            if not (-90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180 and west != east):
                raise BadInput(
                    f"--bounds are south,west,north,east in degrees, not {','.join(f'{b:g}' for b in self.bounds)}"
                )
        for moment in (self.since, self.until):
            origin_us(moment)

    def row_steps(self) -> list[tuple[str, str]]:
        """Name of each step of :meth:`depth`, and what those that fail it are."""
        steps = [
            ("times read", "times cannot be read"),
            ("complete", "rows lack a user, a time or a position"),
            ("on earth", "positions are no latitude and longitude"),
        ]
        if self.max_accuracy is not None:
            steps.append((f"accurate to {self.max_accuracy:g} m", "are less accurate or do not say"))
        if self.bounds is not None:
            steps.append(("in bounds", "lie outside the bounds"))
        if self.since is not None or self.until is not None:
            steps.append(("in time", f"are not from {self.since or 'ever'} to {self.until or 'ever'}"))
        return steps

    def all_pass(self, points: Points) -> bool:
        """Whether every row passes every step, which one look tells."""
        if self.max_accuracy is not None or self.since is not None or self.until is not None:
            return False
        bounds = self.bounds or (-90.0, -180.0, 90.0, 180.0)
        return bool(kernels.all_good(points.user, points.time, points.lat, points.lon, UNREADABLE, *bounds))

    def depth(self, points: Points) -> NDArray[np.int8]:
        """How many steps each row passes, in their order."""
        lat, lon, time = points.lat, points.lon, points.time
        with np.errstate(invalid="ignore"):
            passed = [
                time != UNREADABLE,
                (points.user >= 0) & (time != MISSING) & np.isfinite(lat) & np.isfinite(lon),
                (np.abs(lat) <= 90) & (np.abs(lon) <= 180),
            ]
            if self.max_accuracy is not None:
                told = np.full(len(points), np.nan) if points.accuracy is None else points.accuracy
                passed.append(told <= self.max_accuracy)
            if self.bounds is not None:
                south, west, north, east = self.bounds
                across = (lon >= west) | (lon <= east) if west > east else (lon >= west) & (lon <= east)
                passed.append((lat >= south) & (lat <= north) & across)
        if self.since is not None or self.until is not None:
            first = -(2**62) if self.since is None else origin_us(self.since)
            last = 2**62 if self.until is None else origin_us(self.until)
            passed.append((time >= first) & (time < last))
        depth = np.full(len(points), len(passed), np.int8)
        for step in range(len(passed) - 1, -1, -1):
            depth[~passed[step]] = step
        return depth

    def track_steps(self) -> list[str]:
        """Names of the steps of :meth:`clean`."""
        return [
            "no row twice",
            *(["reachable"] if self.max_speed is not None else []),
            *(["ends trimmed"] if self.trim else []),
        ]

    def clean(self, points: Points) -> tuple[Points, list[dict[str, int]]]:
        """The points by user and time, without those that break a rule; and the counts after each step."""
        points = in_order(points)
        counts = []

        def keep(mask: NDArray[np.bool_], **more: int) -> None:
            nonlocal points
            lost = int(np.count_nonzero(~mask))
            points = points.take(mask) if lost else points
            counts.append({"users": points.n_users(), "points": len(points), "lost": lost, **more})

        if self.visits:  # people do check in twice in a minute, at two places
            columns = {"user": points.user, "time": points.time, "lat": points.lat, "lon": points.lon}
            keep(~pd.DataFrame(columns).duplicated().to_numpy())
        else:
            twice = kernels.repeats(points.user, points.time, points.lat, points.lon)
            keep(twice == 0, elsewhere=int(np.count_nonzero(twice == 1)))
        if self.max_speed is not None:
            keep(~kernels.too_fast(points.user, points.time, points.lat, points.lon, self.max_speed / 3.6))
        if self.trim:
            gap, margin = int(self.track_gap * 1e6), int(self.trim * 1e6)
            keep(~kernels.near_an_end(points.user, points.time, gap, margin))
        return points, counts

    def why(self, step: str, lost: int, elsewhere: int = 0) -> str:
        """The reason of a loss, in words."""
        if step == "no row twice":
            if self.visits:
                return f"{lost:,} have the user, time, lat, lon of another row"
            told = f" ({elsewhere:,} of them another position)" if elsewhere else ""
            return f"{lost:,} have the user, time of another row{told}"
        if step == "reachable":
            return f"{lost:,} cannot be reached at {self.max_speed:g} km/h"
        return f"{lost:,} lie within {self.trim:g} s of an end of a track"


def in_order(points: Points) -> Points:
    """Points by user, then time; those of one moment as they came."""
    user, time = points.user, points.time
    if not len(user) or kernels.in_order(user, time):
        return points
    first = int(time.min())
    span = int(time.max()) - first + 1
    if span * (int(user.max()) + 1) < 2**63:
        order = np.argsort(user * np.int64(span) + (time - first))
        kernels.settle_ties(order, user, time)
    else:
        order = np.lexsort((time, user))
    return points.take(order)
