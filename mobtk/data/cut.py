"""From sorted points with a cell to sequences: regular steps or events, coverage, gaps; and the split."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from msgspec import Struct
from numpy.typing import NDArray

from mobtk import kernels
from mobtk.data.traits import group
from mobtk.errors import BadInput

GAPS = ("hold", "nearest", "drop")
SPLITS = ("train", "valid", "test")
MONDAY = 4 * 86_400
"""Seconds from the epoch, a Thursday, to the first Monday."""


class Layout(Struct, frozen=True):
    """How sequences are cut.

    Args:
        step: a duration, or ``event``.
        period: ``week``, ``day``, or a number of steps.
        coverage: least share of a sequence's steps with a point.
        day_coverage: least share of the steps of each day.
        gaps: what stands in the others: the last place known (``hold``), the ``nearest`` in time, or nothing (``drop``).
        max_gap: steps a place is held or reached for at most.
        min_sequences: users with fewer go.
    """

    step: str = "1h"
    period: str = "week"
    coverage: float = 0.5
    day_coverage: float = 0.0
    gaps: str = "hold"
    max_gap: int | None = None
    min_sequences: int = 1

    def check(self) -> None:
        """Refuse what is no layout."""
        _ = self.length
        if self.gaps not in GAPS:
            raise BadInput(f"gap rule {self.gaps!r} is not one of {', '.join(GAPS)}")
        if not 0 <= self.coverage <= 1 or not 0 <= self.day_coverage <= 1:
            raise BadInput(f"coverage is a share between 0 and 1, not {self.coverage}, by day {self.day_coverage}")
        if self.min_sequences < 1 or (self.max_gap is not None and self.max_gap < 1):
            raise BadInput("--min-sequences and --max-gap are at least 1")
        if self.day_coverage and self.per_day == self.length:
            raise BadInput("--day-coverage wants sequences of several whole days; use --coverage")

    @property
    def seconds(self) -> int | None:
        """Of a step; ``None`` where a step is an event."""
        if self.step == "event":
            return None
        try:
            seconds = int(pd.Timedelta(self.step).total_seconds())
        except ValueError:
            seconds = 0
        if seconds < 1:
            raise BadInput(f"step {self.step!r} is no duration; try 1h, 30min or event")
        return seconds

    @property
    def length(self) -> int:
        """Steps of a sequence."""
        seconds, period = self.seconds, self.period
        if seconds is None:
            if not period.isdigit() or int(period) < 2:
                raise BadInput(f"with --step event the period is a number of events, such as --period 16, not {period!r}")
            return int(period)
        if period.isdigit():
            length = int(period)
        elif period in ("week", "day"):
            whole = {"week": 7 * 86_400, "day": 86_400}[period]
            if whole % seconds:
                raise BadInput(f"a {period} is not a whole number of steps of {self.step}; try 1h or 30min")
            length = whole // seconds
        else:
            raise BadInput(f"period {period!r} is not one of week, day, or a number of steps")
        if length < 2:
            raise BadInput(
                f"a sequence needs two steps at least; a period of {period} with steps of {self.step} has {length}"
            )
        return length

    @property
    def per_day(self) -> int:
        """Steps of a day; all of them where days are not cut evenly, and there is no clock."""
        seconds = self.seconds
        per_day = 86_400 // seconds if seconds and 86_400 % seconds == 0 else 0
        return per_day if per_day and self.length % per_day == 0 else self.length


@dataclass
class Cut:
    """Sequences of some users, and what was lost on the way.

    Args:
        cells: ``(rows, T)``.
        owner: ``(rows,)`` whose each is.
        moments: ``(rows, T)`` local seconds since 1970.
        observed: ``(rows,)`` steps with a point.
        counts: users, points and sequences after each step, and how many were lost.
        best: the best coverage seen, or the most points of a user.
    """

    cells: NDArray[np.int64]
    owner: NDArray[np.int32]
    moments: NDArray[np.int64]
    observed: NDArray[np.int64]
    counts: list[dict[str, int]] = field(default_factory=list)
    best: float = 0.0


def cut(user: NDArray[np.int32], seconds: NDArray[np.int64], cell: NDArray[np.int64], layout: Layout) -> Cut:
    """Sequences of points by user and time; ``seconds`` are local."""
    if layout.seconds is None:
        return _events(user, seconds, cell, layout)
    length, step_seconds = layout.length, layout.seconds
    if (seconds[1:] < seconds[:-1])[user[1:] == user[:-1]].any():  # clocks that go back
        order = np.lexsort((seconds, user))
        user, seconds, cell = user[order], seconds[order], cell[order]
    step = (seconds - MONDAY) // step_seconds  # so that a week, a day and any number of steps begin on one
    first = kernels.first_of_steps(user, step)
    u, s, c = user[first], step[first], kernels.modal_cells(first, cell)
    sequence = s // length
    begins = np.diff(u, prepend=-1).astype(bool) | np.diff(sequence, prepend=sequence[:1] - 1).astype(bool)
    row = np.cumsum(begins) - 1
    cells = np.full((int(begins.sum()), length), -1, np.int64)
    cells[row, s % length] = c
    found = Cut(cells, u[begins], (sequence[begins] * length * step_seconds + MONDAY)[:, None], (cells >= 0).sum(1))
    found.best = float(found.observed.max() / length) if len(cells) else 0.0

    def keep(mask: NDArray[np.bool_], **more: int) -> None:
        if not mask.all():
            for name in ("cells", "owner", "moments", "observed"):
                setattr(found, name, getattr(found, name)[mask])
        found.counts.append(
            {
                "users": len(np.unique(found.owner)),
                "points": int(found.observed.sum()),
                "sequences": len(found.cells),
                "lost": int(np.count_nonzero(~mask)),
                **more,
            }
        )

    keep(np.ones(len(cells), bool))
    covered: NDArray[np.bool_] = found.observed >= max(1, layout.coverage * length)
    if layout.day_coverage:
        by_day = (found.cells >= 0).reshape(len(found.cells), -1, layout.per_day).sum(2)
        covered = covered & (by_day >= layout.day_coverage * layout.per_day).all(axis=1)
    keep(covered)
    gaps = found.cells < 0
    found.cells = fill(found.cells, layout.gaps, layout.max_gap)
    whole: NDArray[np.bool_] = np.asarray((found.cells >= 0).all(axis=1))
    keep(whole, filled=int(gaps[whole].sum()))
    if layout.min_sequences > 1:
        keep(np.bincount(found.owner, minlength=1)[found.owner] >= layout.min_sequences)
    found.moments = found.moments + np.arange(length) * step_seconds
    return found


def fill(cells: NDArray[np.int64], gaps: str, max_gap: int | None) -> NDArray[np.int64]:
    """Steps without a point (-1) by the gap rule; what stays open stays -1."""
    if gaps == "drop":
        return cells
    return kernels.fill_gaps(cells, gaps == "nearest", cells.shape[1] if max_gap is None else max_gap)


def _events(user: NDArray[np.int32], seconds: NDArray[np.int64], cell: NDArray[np.int64], layout: Layout) -> Cut:
    """Sequences of successive points of a user, without overlap, the last one ending with the last point."""
    length = layout.length
    count = np.bincount(user, minlength=1)
    spare = count % length
    rank = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)  # of each point among its user's
    begin = np.flatnonzero((rank >= spare[user]) & ((rank - spare[user]) % length == 0)) if len(user) else np.empty(0, int)
    owner = user[begin]
    if layout.min_sequences > 1:
        enough = np.bincount(owner, minlength=1)[owner] >= layout.min_sequences
        begin, owner = begin[enough], owner[enough]
    index = begin[:, None] + np.arange(length)
    lost = len(user) - index.size
    counts = [{"users": len(np.unique(owner)), "points": index.size, "sequences": len(begin), "lost": lost}]
    return Cut(cell[index], owner, seconds[index], np.full(len(begin), length), counts, float(count.max()))


def split_rows(
    users: NDArray,
    ends: NDArray[np.int64],
    how: str,
    shares: Sequence[float],
    seed: int,
    finer: str = "a shorter --period",
) -> tuple[NDArray[np.str_], list[float]]:
    """The split of each row, by user or by the time of its end; and the two moments that part it, if by time.

    ``finer`` is what would make more rows, for a message.
    """
    if how == "user":
        names, number = np.unique(users.astype(str), return_inverse=True)
        if len(names) < 3:
            raise BadInput(
                f"a split by user needs three users and there {'is' if len(names) == 1 else 'are'} {len(names)} left; "
                "use --split time"
            )
        order = np.random.default_rng(seed).permutation(len(names))
        rank = np.empty(len(names), int)
        rank[order] = np.arange(len(names))
        last = np.round(np.cumsum(shares[:2]) * len(names)).astype(int)
        last[0] = np.clip(last[0], 1, len(names) - 2)  # at least one user each
        last[1] = np.clip(last[1], last[0] + 1, len(names) - 1)
        return np.array(SPLITS)[np.searchsorted(last, rank, side="right")][number], []
    cuts = np.quantile(ends, np.cumsum(shares[:2]))
    part = np.array(SPLITS)[np.searchsorted(cuts, ends, side="left")]
    missing = [s for s in SPLITS if not (part == s).any()]
    if missing:
        raise BadInput(
            f"a split by time leaves nothing for {' and '.join(missing)}: {len(ends)} sequences end at "
            f"{len(np.unique(ends))} different times; use {finer}, or --split user where there are three users"
        )
    return part, cuts.tolist()


def divide(
    users: NDArray,
    ends: NDArray[np.int64],
    features: NDArray[np.float64],
    split: str,
    shares: Sequence[float],
    clusters: int,
    seed: int,
) -> tuple[dict[str, NDArray], list[float], int]:
    """What only all rows together tell: columns ``split``, ``cluster``, ``person``; cuts in time; how many people."""
    part, cuts = split_rows(users, ends, split, shares, seed)
    cluster = group(features, part == "train", clusters, seed)
    people, number = np.unique(users.astype(str), return_inverse=True)
    columns = {"split": part, "cluster": cluster.astype(np.int32), "person": number.astype(np.int32)}
    return columns, cuts, len(people)


def check_split(split: str, shares: Sequence[float], seed: int) -> None:
    """Refuse what is no split."""
    if split not in ("user", "time"):
        raise BadInput(f"split {split!r} is not one of user, time")
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        raise BadInput(f"shares are three numbers that sum to 1, training first, not {list(shares)}")
    if seed < 0:
        raise BadInput(f"a seed is 0 or more, not {seed}")
