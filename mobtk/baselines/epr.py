"""Exploration and preferential return."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from mobtk.contracts import SpatialMapper


@final
class ExplorationAndReturn:
    """The individual mobility model of Song et al. 2010 (https://doi.org/10.1038/nphys1760).

    A person who knows S cells explores a new one with probability ``rho * S ** -gamma`` and else returns to one they
    know, in proportion to their visits. ``rho`` and ``gamma``, the waiting times and the lengths of jumps are taken
    from the training sequences rather than from the paper's power laws. An exploration that leaves the map or ends in
    a cell the person knows is drawn again a few times and then becomes a return, and a return is to another cell than
    the one they are in.

    Args:
        cells: ``(rows, T)``.
        mapper: where the cells are.
    """

    def __init__(self, cells: NDArray[np.int64], mapper: SpatialMapper) -> None:
        self.mapper, self.steps, self.first = mapper, cells.shape[1], cells[:, 0]
        self.lat, self.lon = mapper.decode(np.arange(mapper.n_cells[0]))
        moved = cells[:, 1:] != cells[:, :-1]
        row, step = np.nonzero(moved)
        a, b = cells[row, step], cells[row, step + 1]
        dy = (self.lat[b] - self.lat[a]) * 111.2
        dx = (self.lon[b] - self.lon[a]) * 111.2 * np.cos(np.radians(self.lat[a]))
        self.jumps = np.hypot(dx, dy) if len(row) else np.array([1.0])
        starts = np.flatnonzero(np.column_stack([np.ones(len(cells), bool), moved]))
        self.waits = np.diff(starts, append=cells.size)
        self.rho, self.gamma = _exploration(cells)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """See :class:`~mobtk.baselines.Baseline`."""
        out = np.empty((n, self.steps), np.int64)
        stays = np.empty((n, self.steps), np.int64)  # cell of each stay so far
        stays[:, 0] = rng.choice(self.first, n)
        begin, count, known = np.zeros(n, np.int64), np.ones(n, np.int64), np.ones(n, np.int64)
        active = np.arange(n)
        while len(active):
            here = stays[active, count[active] - 1]
            end = begin[active] + rng.choice(self.waits, len(active))
            for person, place, first, last in zip(active, here, begin[active], end, strict=True):
                out[person, first:last] = place
            begin[active] = end
            active, here = active[end < self.steps], here[end < self.steps]
            visited = np.where(np.arange(self.steps) < count[active, None], stays[active], -1)
            new = self._explore(here, visited, rng)
            wants = rng.random(len(active)) < self.rho * known[active] ** -self.gamma
            elsewhere = (visited >= 0) & (visited != here[:, None])
            old = visited[np.arange(len(active)), (rng.random(visited.shape) * elsewhere).argmax(1)]
            explores = (wants | (known[active] == 1)) & (new >= 0)
            stays[active, count[active]] = np.where(explores, new, old)
            known[active] += explores
            count[active] += 1
        return out

    def _explore(self, here: NDArray[np.int64], visited: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        found = np.full(len(here), -1)
        for _ in range(4):
            open_ = np.flatnonzero(found < 0)
            if not len(open_):
                break
            at, km = here[open_], rng.choice(self.jumps, len(open_))
            angle = rng.uniform(0, 2 * np.pi, len(open_))
            lat = self.lat[at] + km * np.sin(angle) / 111.2
            lon = self.lon[at] + km * np.cos(angle) / (111.2 * np.cos(np.radians(self.lat[at])))
            cell = self.mapper.encode(np.clip(lat, -90, 90), lon)
            found[open_] = np.where((visited[open_] == cell[:, None]).any(1), -1, cell)
        return found


def _exploration(cells: NDArray[np.int64]) -> tuple[float, float]:
    """``rho`` and ``gamma`` by least squares on logarithms: how often a move reaches a new cell, by cells known."""
    tries: dict[int, list[int]] = {}
    for row in cells[:: max(1, len(cells) // 2000)]:
        seen = {int(row[0])}
        for cell in row[1:][row[1:] != row[:-1]].tolist():
            tries.setdefault(len(seen), []).append(cell not in seen)
            seen.add(cell)
    known = [(s, np.mean(new)) for s, new in tries.items() if len(new) >= 20 and np.mean(new) > 0]
    if len(known) < 2:
        return 0.6, 0.21  # the paper's values, where there is too little to go by
    s, p = np.array(known).T
    slope, offset = np.polyfit(np.log(s), np.log(p), 1, w=np.sqrt([len(tries[int(k)]) for k in s]))
    return float(np.exp(offset)), float(-slope)
