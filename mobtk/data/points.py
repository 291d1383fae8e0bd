"""Points in memory, column by column: who, when in UTC, where."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MISSING = np.iinfo(np.int64).min
"""A time that is not given."""
UNREADABLE = MISSING + 1
"""A time that is given and cannot be read."""


@dataclass
class Points:
    """Some points.

    Args:
        names: ``(users,)`` different users, text.
        user: ``(n,)`` int32 index into ``names``; -1 where nobody is named.
        time: ``(n,)`` int64 microseconds since 1970 in UTC, :data:`MISSING` or :data:`UNREADABLE`.
        lat, lon: ``(n,)`` float64 WGS84 degrees; NaN where there is none.
        accuracy: ``(n,)`` metres, where the source tells it.
    """

    names: NDArray[np.object_]
    user: NDArray[np.int32]
    time: NDArray[np.int64]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    accuracy: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Points":
        """Some of the rows, in the order given; all names stay."""
        accuracy = None if self.accuracy is None else self.accuracy[rows]
        return Points(self.names, self.user[rows], self.time[rows], self.lat[rows], self.lon[rows], accuracy)

    def n_users(self) -> int:
        """How many different users have a point here, all of them named."""
        return int(np.count_nonzero(np.bincount(self.user)))

    def frame(self) -> pd.DataFrame:
        """The same as a table of ``user, time, lat, lon``."""
        return pd.DataFrame(
            {
                "user": pd.Categorical.from_codes(self.user, pd.Index(self.names)),
                "time": pd.to_datetime(self.time, unit="us", utc=True),
                "lat": self.lat,
                "lon": self.lon,
            }
        )


def user_hash(names: NDArray[np.object_]) -> NDArray[np.uint64]:
    """A hash of each name that is the same in every process. Shards are ranges of it."""
    return pd.util.hash_array(names, categorize=False) if len(names) else np.zeros(0, np.uint64)


def user_rank(names: NDArray[np.object_]) -> NDArray[np.int64]:
    """The rank of each name in the order of the hash, in which users come into a dataset, whatever the number of shards."""
    rank = np.empty(len(names), np.int64)
    rank[np.lexsort((names.astype(str), user_hash(names)))] = np.arange(len(names))
    return rank


def concat(parts: Sequence[Points]) -> Points:
    """All points of some parts as they came, users numbered as they appear."""
    codes, names = pd.factorize(np.concatenate([p.names for p in parts]) if parts else np.empty(0, object))
    codes = np.append(codes, -1).astype(np.int32)  # the last one serves users that are not named
    first = np.cumsum([0, *(len(p.names) for p in parts)])
    users = [codes[np.where(p.user >= 0, p.user + begin, -1)] for p, begin in zip(parts, first, strict=False)]
    accuracy = [p.accuracy for p in parts if p.accuracy is not None]

    def joined(arrays: list[NDArray], kind: type) -> NDArray:
        return np.concatenate(arrays) if arrays else np.empty(0, kind)

    return Points(
        np.asarray(names, object),
        joined(users, np.int32),
        joined([p.time for p in parts], np.int64),
        joined([p.lat for p in parts], np.float64),
        joined([p.lon for p in parts], np.float64),
        joined(accuracy, np.float64) if parts and len(accuracy) == len(parts) else None,
    )
