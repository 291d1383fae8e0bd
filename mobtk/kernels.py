"""Loops over many points that numpy cannot say without a pass each: compiled once by numba, kept on disk."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mobtk.geo import EARTH_KM

RADIUS = EARTH_KM * 1000.0
BLOCK = 512
"""Points that are worked on at once where that makes vector instructions."""


@njit(cache=True, inline="always")
def _metres(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Great-circle distance by the haversine formula."""
    p1, p2 = math.radians(lat1), math.radians(lat2)
    a = math.sin((p2 - p1) / 2) ** 2 + math.cos(p1) * math.cos(p2) * math.sin(math.radians(lon2 - lon1) / 2) ** 2
    return 2 * RADIUS * math.asin(min(1.0, math.sqrt(a)))


@njit(cache=True)
def distance(lat1: NDArray, lon1: NDArray, lat2: NDArray, lon2: NDArray) -> NDArray:
    """Metres between pairs of points, ``(n,)`` degrees each."""
    out = np.empty(len(lat1))
    for i in range(len(lat1)):
        out[i] = _metres(lat1[i], lon1[i], lat2[i], lon2[i])
    return out


@njit(cache=True)
def all_good(
    user: NDArray,
    time: NDArray,
    lat: NDArray,
    lon: NDArray,
    unreadable: int,
    south: float,
    west: float,
    north: float,
    east: float,
) -> bool:
    """Whether every point has a user, a time and a position within bounds."""
    for i in range(len(user)):
        if not (user[i] >= 0 and time[i] > unreadable and south <= lat[i] <= north and west <= lon[i] <= east):
            return False
    return True


@njit(cache=True)
def add_offsets(time: NDArray, first: int, width: int, offsets: NDArray) -> NDArray:
    """Seconds of moments in microseconds, plus the offset (seconds) of the stretch of time they fall in."""
    out = np.empty(len(time), np.int64)
    for i in range(len(time)):
        seconds = time[i] // 1_000_000
        out[i] = seconds + offsets[(seconds - first) // width]
    return out


@njit(cache=True)
def in_order(user: NDArray, time: NDArray) -> bool:
    """Whether points are sorted by user, then time."""
    for i in range(1, len(user)):  # noqa: SIM110 - numba wants the loop
        if user[i] < user[i - 1] or (user[i] == user[i - 1] and time[i] < time[i - 1]):
            return False
    return True


@njit(cache=True)
def settle_ties(order: NDArray, user: NDArray, time: NDArray) -> None:
    """Let points of one user and moment stand in the order of the input, as a stable sort leaves them."""
    n, i = len(order), 0
    while i < n:
        j = i + 1
        while j < n and user[order[j]] == user[order[i]] and time[order[j]] == time[order[i]]:
            j += 1
        if j - i > 1:
            order[i:j] = np.sort(order[i:j])
        i = j


@njit(cache=True)
def repeats(user: NDArray, time: NDArray, lat: NDArray, lon: NDArray) -> NDArray:
    """What each sorted point repeats of the one before it: 0 nothing, 1 user and moment, 2 the position too."""
    out = np.zeros(len(user), np.int8)
    for i in range(1, len(user)):
        if user[i] == user[i - 1] and time[i] == time[i - 1]:
            out[i] = 2 if lat[i] == lat[i - 1] and lon[i] == lon[i - 1] else 1
    return out


@njit(cache=True, inline="always")
def _reaches(time: NDArray, lat: NDArray, lon: NDArray, a: int, b: int, limit: float) -> bool:
    return _metres(lat[a], lon[a], lat[b], lon[b]) <= limit * (time[b] - time[a]) / 1e6


@njit(cache=True)
def too_fast(user: NDArray, time: NDArray, lat: NDArray, lon: NDArray, limit: float) -> NDArray:
    """Whether a sorted point cannot be reached from the last one kept of its user at ``limit`` metres a second.

    A user's first point goes where the second cannot be reached from it and the third can from the second only: else one
    bad beginning would cost all that is good after it.
    """
    n = len(user)
    out = np.zeros(n, np.bool_)
    last = 0
    for i in range(1, n):
        begins = last == i - 1 and (last == 0 or user[last - 1] != user[last])
        if begins and i + 1 < n and user[i + 1] == user[last] and user[i] == user[last]:
            near = _reaches(time, lat, lon, i, i + 1, limit)
            if near and not _reaches(time, lat, lon, last, i, limit) and not _reaches(time, lat, lon, last, i + 1, limit):
                out[last] = True
                last = i
                continue
        if user[i] == user[last] and not _reaches(time, lat, lon, last, i, limit):
            out[i] = True
            continue
        last = i
    return out


@njit(cache=True)
def near_an_end(user: NDArray, time: NDArray, gap: int, margin: int) -> NDArray:
    """Whether a sorted point lies within ``margin`` of the first or last of its track, which a ``gap`` ends (all us)."""
    out = np.zeros(len(user), np.bool_)
    n, i = len(user), 0
    while i < n:
        j = i + 1
        while j < n and user[j] == user[i] and time[j] - time[j - 1] <= gap:
            j += 1
        for k in range(i, j):
            out[k] = time[k] - time[i] < margin or time[j - 1] - time[k] < margin
        i = j
    return out


@njit(cache=True)
def first_of_steps(user: NDArray, step: NDArray) -> NDArray:
    """Rows at which a new user or a new step begins, of sorted points."""
    out = np.empty(len(user), np.int64)
    n = 0
    for i in range(len(user)):
        if i == 0 or user[i] != user[i - 1] or step[i] != step[i - 1]:
            out[n] = i
            n += 1
    return out[:n].copy()


@njit(cache=True)
def modal_cells(first: NDArray, cell: NDArray) -> NDArray:
    """The cell with most points from each row of ``first`` to the next; the lowest of several."""
    out = np.empty(len(first), np.int64)
    for g in range(len(first)):
        a = first[g]
        b = first[g + 1] if g + 1 < len(first) else len(cell)
        best = cell[a]
        same = True
        for i in range(a + 1, b):
            if cell[i] != best:
                same = False
                break
        if not same and b - a <= 12:
            most = 0
            for i in range(a, b):
                run = 0
                for j in range(a, b):
                    run += cell[j] == cell[i]
                if run > most or (run == most and cell[i] < best):
                    most, best = run, cell[i]
        elif not same:
            part = np.sort(cell[a:b])
            most, run = 0, 0
            for i in range(len(part)):
                run = run + 1 if i and part[i] == part[i - 1] else 1
                if run > most:
                    most, best = run, part[i]
        out[g] = best
    return out


@njit(cache=True)
def fill_gaps(cells: NDArray, nearest: bool, reach: int) -> NDArray:
    """Steps without a place (-1) take the last one, or the nearest, at most ``reach`` steps away; the first, ahead."""
    out = cells.copy()
    rows, steps = cells.shape
    ahead = np.empty(steps, np.int64)
    for r in range(rows):
        after = -1
        for t in range(steps - 1, -1, -1):
            if cells[r, t] >= 0:
                after = t
            ahead[t] = after
        before = -1
        for t in range(steps):
            if cells[r, t] >= 0:
                before = t
                continue
            use = before
            if before < 0 or (nearest and ahead[t] >= 0 and ahead[t] - t < t - before):
                use = ahead[t]
            if use >= 0 and abs(use - t) <= reach:
                out[r, t] = cells[r, use]
    return out


@njit(cache=True)
def stays_by_distance(
    user: NDArray, time: NDArray, lat: NDArray, lon: NDArray, metres: float, least: int, gap: int, at_gap: bool, at_end: bool
) -> tuple[NDArray, NDArray, NDArray]:
    """Stays of sorted points: first row, row after the last, and the row whose time ends it. Times in microseconds.

    A stay begins at a point and goes on until one is ``metres`` away from it. One that a gap or the end of the user's points
    cuts off ends with its last point, if it may.
    """
    begin, stop, ends = np.empty(len(user), np.int64), np.empty(len(user), np.int64), np.empty(len(user), np.int64)
    n, start = 0, 0
    for i in range(1, len(user) + 1):
        over = i == len(user) or user[i] != user[start]
        broken = not over and time[i] - time[i - 1] > gap
        if over or broken:
            if ((at_end and over) or (at_gap and broken)) and i - 1 > start and time[i - 1] - time[start] >= least:
                begin[n], stop[n], ends[n] = start, i, i - 1
                n += 1
            start = i
        elif _metres(lat[start], lon[start], lat[i], lon[i]) >= metres:
            if time[i] - time[start] >= least:
                begin[n], stop[n], ends[n] = start, i, i
                n += 1
            start = i
    return begin[:n].copy(), stop[:n].copy(), ends[:n].copy()


@njit(cache=True)
def slow_runs(user: NDArray, time: NDArray, lat: NDArray, lon: NDArray, limit: float, gap: int) -> NDArray:
    """A number for each run of sorted points whose moves are slower than ``limit`` metres a second; -1 for no run."""
    out = np.full(len(user), -1, np.int64)
    run = -1
    for i in range(1, len(user)):
        took = time[i] - time[i - 1]
        if user[i] != user[i - 1] or took > gap:
            continue
        if _metres(lat[i - 1], lon[i - 1], lat[i], lon[i]) <= limit * took / 1e6:
            if out[i - 1] < 0:
                run += 1
                out[i - 1] = run
            out[i] = out[i - 1]
    return out


@njit(cache=True)
def path_metres(first: NDArray, last: NDArray, lat: NDArray, lon: NDArray) -> NDArray:
    """Length of the way along the points from each ``first`` row to its ``last``."""
    out = np.zeros(len(first))
    for k in range(len(first)):
        for i in range(first[k], last[k]):
            out[k] += _metres(lat[i], lon[i], lat[i + 1], lon[i + 1])
    return out


@njit(cache=True, inline="always")
def _polynomial(c: NDArray, a: float, b: float) -> float:
    k = len(c)
    total = 0.0
    for p in range(k - 1, -1, -1):
        row = 0.0
        for q in range(k - 1, -1, -1):
            row = row * b + c[p, q]
        total = total * a + row
    return total


@njit(cache=True)
def evaluate_polynomials(
    cx: NDArray, cy: NDArray, lon: NDArray, lat: NDArray, south: float, west: float, north: float, east: float
) -> tuple[NDArray, NDArray]:
    """x and y of points by polynomials of their place in a box, ``(k, k)`` coefficients of lon and lat."""
    x, y = np.empty(len(lon)), np.empty(len(lon))
    for i in range(len(lon)):
        a = 2 * (lon[i] - west) / (east - west) - 1
        b = 2 * (lat[i] - south) / (north - south) - 1
        x[i], y[i] = _polynomial(cx, a, b), _polynomial(cy, a, b)
    return x, y


@njit(cache=True)
def cells_by_polynomials(
    cx: NDArray, cy: NDArray, lon: NDArray, lat: NDArray, south: float, west: float, north: float, east: float,
    left: float, bottom: float, size: float, rows: int, columns: int,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Row-major cells of points, -1 outside; and which lie within a millimetre of a border, or outside the box."""
    n, k = len(lon), len(cx)
    cells = np.empty(n, np.int64)
    doubtful = np.empty(n, np.bool_)
    near = 1e-3 / size
    per_lon, per_lat, per_metre = 2 / (east - west), 2 / (north - south), 1 / size
    a, b, u, v, inner_u, inner_v = np.empty((6, BLOCK))
    for first in range(0, n, BLOCK):  # Horner's rule on a block of points at once, which compiles to vector instructions
        m = min(BLOCK, n - first)
        for i in range(m):
            a[i] = (lon[first + i] - west) * per_lon - 1
            b[i] = (lat[first + i] - south) * per_lat - 1
            u[i] = v[i] = 0.0
        for p in range(k - 1, -1, -1):
            for i in range(m):
                inner_u[i] = inner_v[i] = 0.0
            for q in range(k - 1, -1, -1):
                x, y = cx[p, q], cy[p, q]
                for i in range(m):
                    inner_u[i] = inner_u[i] * b[i] + x
                    inner_v[i] = inner_v[i] * b[i] + y
            for i in range(m):
                u[i] = u[i] * a[i] + inner_u[i]
                v[i] = v[i] * a[i] + inner_v[i]
        for i in range(m):
            x, y = (u[i] - left) * per_metre, (v[i] - bottom) * per_metre
            column, row = math.floor(x), math.floor(y)
            x, y = x - column, y - row
            inside = (a[i] >= -1) & (a[i] <= 1) & (b[i] >= -1) & (b[i] <= 1)
            at_border = (x < near) | (x > 1 - near) | (y < near) | (y > 1 - near)
            on_grid = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            doubtful[first + i] = at_border | (not inside)
            cells[first + i] = row * columns + column if on_grid else -1
    return cells, doubtful


@njit(cache=True)
def nearest_sequence(sequences: NDArray, others: NDArray) -> tuple[NDArray, NDArray]:
    """Of the others ``(M, T)`` the first that is most like each sequence ``(N, T)``, and in how many steps they differ."""
    n, steps = sequences.shape
    least = np.full(n, steps + 1, np.int64)
    which = np.zeros(n, np.int64)
    for i in range(n):
        for j in range(len(others)):
            differ = 0
            for t in range(steps):
                differ += sequences[i, t] != others[j, t]
            if differ < least[i]:
                least[i], which[i] = differ, j
    return which, least
