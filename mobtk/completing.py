"""Completing: gaps of trajectories, their next points, and how well hidden points are told beside baselines."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mobtk._version import __version__
from mobtk.baselines.points import Completion, fit_completions
from mobtk.contracts import Hidden, Mask
from mobtk.data.field import spread
from mobtk.data.trajectories import Trajectories, Trajectory
from mobtk.errors import BadInput
from mobtk.kernels import distance
from mobtk.metrics.cards import CARDS
from mobtk.metrics.points import PLACE_METRICS, TIME_METRICS, PointErrors, skill
from mobtk.models.assemble import build_part
from mobtk.models.completer import Completer
from mobtk.models.paths import collate, hide, nothing_hidden, uncollate, windows
from mobtk.recipe import Part
from mobtk.runs import Run, find_device, open_run
from mobtk.storage import PathLike

log = logging.getLogger("mobtk")

BATCH = 64
"""Trajectories that are completed at once."""
MOST = 2000
"""Pieces of trajectories that are scored, evenly spread, where it is not said how many."""
LEARNED = 2000
"""Trajectories from which the baselines learn."""
TASKS = ("last", "block", "random", "keep-every", "travel-time", "origin-destination")
"""Masks that are scored where it is not said which."""

Pairs = list[tuple[Trajectory, Hidden]]


class Teller:
    """A completer at work on trajectories of the earth.

    Args:
        run: whose completer.
        zone: where local clocks are read.
        device: where it works.
    """

    def __init__(self, run: Run, zone: str, device: torch.device) -> None:
        self.model: Completer = run.completer().to(device)
        self.zone, self.device, self.origin = zone, device, run.origin()
        self.settings = run.recipe.complete

    def pieces(self, data: Trajectories, rows: Iterable[Any], window: int) -> list[Trajectory]:
        """Trajectories in pieces of so many points."""
        together = self.model.tokenizer.together
        return [piece for row in rows for piece in windows(data[int(row)], window, together)]

    def ask(self, pieces: Sequence[Trajectory], mask: Mask, n: int, seed: int) -> Pairs:
        """What a mask hides of some pieces, evenly spread. Where it hides their ends, of those that are long enough: as much
        is hidden of each, and a patch is known before it.
        """
        rng = np.random.default_rng(seed)
        chosen = spread(np.arange(len(pieces)), n)
        pairs = [(pieces[i], hide(pieces[i], mask, rng)) for i in chosen if len(pieces[i]) >= mask.least]
        ends = [(t, h) for t, h in pairs if _is_end(h) and 2 * _known(h) >= len(t)]
        if len(ends) < len(pairs):
            return pairs
        most = max((int(h.place.sum()) for _, h in ends), default=0)
        return [(t, h) for t, h in ends if h.place.sum() == most and _known(h) >= self.model.tokenizer.patch]

    def at_once(self, pairs: Pairs, temperature: float = 0.0, generator: torch.Generator | None = None) -> list[Trajectory]:
        """All that is hidden, in one pass."""
        patch = self.model.tokenizer.patch
        paths = collate(*_apart(pairs), self.zone, multiple=patch, origin=self.origin, device=self.device)
        place, time = self.model.at_once(paths, temperature=temperature, generator=generator)
        return uncollate(place, time, *_apart(pairs), self.origin)

    def step_by_step(
        self, pairs: Pairs, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> list[Trajectory]:
        """What is hidden at the end of trajectories, of which as many points are shown and hidden of each."""
        patch, known = self.model.tokenizer.patch, _known(pairs[0][1])
        drop = known % patch  # context in whole patches
        if known < patch:
            raise BadInput(f"{known} points are too few to go on from with patches of {patch}")
        cut = [(t[drop:], _cut(h, drop)) for t, h in pairs]
        paths = collate(*_apart(cut), self.zone, multiple=patch, origin=self.origin, device=self.device)
        place, time = self.model.step_by_step(paths, known - drop, temperature=temperature, generator=generator)
        told = uncollate(place, time, *_apart(cut), self.origin)
        return [_joined(t[:drop], rest) for (t, _), rest in zip(pairs, told, strict=True)]

    def ways(self, hidden: Hidden) -> list[str]:
        """How the model can tell this, as far as it learned so: ``step by step`` where it is the end of a trajectory, ``at
        once`` always.
        """
        onward = self.settings.onward > 0 and _is_end(hidden) and _known(hidden) >= self.model.tokenizer.patch
        found = ["step by step"] if onward else []
        return found + (["at once"] if self.settings.onward < 1 else [])

    def tell(
        self, pairs: Pairs, way: str, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> list[Trajectory]:
        """One of the two, in batches of trajectories that go together."""
        groups: dict[Any, list[int]] = defaultdict(list)
        for i, (t, h) in enumerate(pairs):
            groups[(len(t), _known(h)) if way == "step by step" else None].append(i)
        tell = self.step_by_step if way == "step by step" else self.at_once
        found: list[Trajectory | None] = [None] * len(pairs)
        for members in groups.values():
            members.sort(key=lambda i: len(pairs[i][0]))  # little padding
            for at in range(0, len(members), BATCH):
                some = members[at : at + BATCH]
                for i, told in zip(some, tell([pairs[i] for i in some], temperature, generator), strict=True):
                    found[i] = told
        return [t for t in found if t is not None]


def evaluate_completer(
    run: Run | PathLike,
    *,
    data: PathLike | None = None,
    split: str = "test",
    masks: Sequence[str] = TASKS,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    window: int | None = None,
    n: int = MOST,
    seed: int = 0,
    baselines: bool = True,
    device: str = "auto",
) -> dict[str, Any]:
    """Score what a run tells of hidden points, beside baselines on the same ones. ``mobtk evaluate`` does the same.

    Args:
        run: a completer, or its folder.
        data: other trajectories than those it was built for.
        split: whose trajectories.
        masks: what is hidden, by name; a mask is a task.
        options: of each mask.
        window: points of a piece; trajectories are cut into such. As many as the model reads, by default.
        n: pieces of each task at most.
        seed: of the masks.
        baselines: also score the baselines.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        what goes into the result file: ``scores`` by mask, source and metric; ``by_step`` the mean metres at each hidden
        place; ``skill`` of the better way of the model over the best baseline; the cards, the split and versions.
    """
    run = open_run(run, "complete")
    found = run.trajectories(data)
    most = run.recipe.complete.window if window is None else window
    if most < 4 or n < 1:
        raise BadInput(f"pieces have 4 points at least and there is one at least, so not a window of {most} and n={n}")
    if unasked := set(options or {}) - set(masks):
        raise BadInput(f"options are given for mask {min(unasked)!r}, which is not among {', '.join(masks)}")
    teller = Teller(run, found.info.timezone, find_device(device))
    pieces = teller.pieces(found, spread(found.rows(split), n), most)
    if not pieces:
        raise BadInput(f"split {split!r} of {found.path} has no trajectories; give it a larger share")
    learn = teller.pieces(found, found.mixed(found.rows("train"), np.random.default_rng(0))[:LEARNED], most)
    if baselines and not learn:
        log.warning("%s has no training split, from which baselines learn: the model stands alone", found.path)
    result: dict[str, Any] = {"scores": {}, "by_step": {}, "skill": {}, "n": {}, "left_out": {}}
    for name in tqdm(masks, desc="evaluate", unit="mask", leave=False, disable=None):
        mask: Mask = build_part("mask", Part(name, dict((options or {}).get(name, {}))))
        pairs = teller.ask(pieces, mask, n, seed)
        result["left_out"][name] = min(n, len(pieces)) - len(pairs)
        if not pairs:
            log.warning("mask %s is left out: no piece of split %r is long enough for it", name, split)
            continue
        sources: dict[str, list[Trajectory]] = {}
        for way in set.intersection(*(set(teller.ways(h)) for _, h in pairs)):
            sources[f"model {way}"] = teller.tell(pairs, way)
        if baselines and learn:
            given: dict[str, Completion] = fit_completions(learn, mask, seed=seed)
            sources |= {key: [one(t, h) for t, h in pairs] for key, one in given.items()}
        errors = {source: PointErrors() for source in sorted(sources, key=lambda s: not s.startswith("model"))}
        for source, told in sources.items():
            for (truth, hidden), answer in zip(pairs, told, strict=True):
                errors[source].add(truth, hidden, answer)
        result["n"][name] = len(pairs)
        result["scores"][name] = {source: e.scores() for source, e in errors.items()}
        result["by_step"][name] = {source: e.by_step() for source, e in errors.items()}
        result["skill"][name] = _skill(result["scores"][name])
    result |= {
        "task": "complete",
        "split": split,
        "window": most,
        "seed": seed,
        "options": {k: dict(v) for k, v in (options or {}).items()},
        "dataset": {"path": str(found.path), "name": found.info.name, "fingerprint": found.fingerprint},
        "cards": {name: msgspec.to_builtins(CARDS[name]) for name in (*PLACE_METRICS, *TIME_METRICS)},
        "mobtk": __version__,
    }
    others = [*([found.info.name] if data else []), *([f"window-{window}"] if window else [])]
    others += [] if set(TASKS) <= set(masks) else masks
    run.write_result(re.sub(r"[^\w.-]+", "-", "-".join(["complete", *others])), result)
    return result


def _skill(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of each way of the model over the best baseline, in each metric."""
    others = [s for source, s in scores.items() if not source.startswith("model")]
    if not others:
        return {}
    return {
        source: {m: skill(error, min(other[m] for other in others)) for m, error in s.items()}
        for source, s in scores.items()
        if source.startswith("model")
    }


def table(result: Mapping[str, Any]) -> str:
    """A result as text: for each mask a row a source; of next points the mean metres at some steps, too."""
    lines = []
    for name, scores in result["scores"].items():
        metrics = list(next(iter(scores.values())))
        by_step = result["by_step"][name]
        steps = len(next(iter(by_step.values()))) if name.split(".")[-1] == "last" else 0
        ahead = sorted({1, -(-steps // 2), steps}) if steps else []
        heads = [*metrics, *(f"m@{step}" for step in ahead)]
        lines += ["", f"{name} ({result['n'][name]:,})".ljust(28) + "".join(f"{m:>12}" for m in heads)]
        for source, s in scores.items():
            values = [*(s[m] for m in metrics), *(by_step[source][step - 1] for step in ahead)]
            lines.append(f"{source:<28}" + "".join(f"{value:>12.4g}" for value in values))
        for source, gained in result["skill"][name].items():
            lines.append(f"{'skill' + source.removeprefix('model'):<28}" + "".join(f"{gained[m]:>12.3f}" for m in metrics))
        if not any(source.startswith("model") for source in scores):
            lines.append("the model did not learn to tell this")
        if left := result["left_out"][name]:
            lines.append(f"{left:,} pieces are too short for it and left out")
    return "\n".join(lines[1:])


def predict(
    run: Run | PathLike,
    data: PathLike,
    *,
    n: int = 12,
    every: float | None = None,
    split: str | None = None,
    samples: int = 20,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """The next points of trajectories. ``mobtk predict`` does the same.

    Args:
        run: a completer, or its folder.
        data: folder of trajectories.
        n: points that are foretold after the last one of each.
        every: seconds between them; without, the model tells when they are reached, too.
        split: whose trajectories; all by default.
        samples: drawn to say how sure each point is; 0 for none.
        seed: of the samples.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        a row a point: ``trajectory`` (its row), ``user``, ``step`` (from 1), ``time`` (UTC), ``lat``, ``lon`` and
        ``metres_80``, within which of the point four of five samples lie.
    """
    run = open_run(run, "complete")
    found = Trajectories(data)
    window = run.recipe.complete.window
    if not 1 <= n <= window // 2:
        raise BadInput(f"the model of run {run.path} reads {window} points and foretells 1 to {window // 2}, not {n}")
    _check_samples(samples)
    if every is not None and not every > 0:
        raise BadInput(f"points are some time above 0 apart, not {every:g} s")
    teller = Teller(run, found.info.timezone, find_device(device))
    rows = found.rows(split) if split else np.arange(len(found))
    patch, together = teller.model.tokenizer.patch, teller.model.tokenizer.together
    long = [int(row) for row in rows if len(found[int(row)]) >= patch]
    if not long:
        raise BadInput(f"{found.path} has no trajectories of {patch} points or more to go on from")
    if len(long) < len(rows):
        log.warning(
            "%d of %d trajectories are shorter than a patch of %d and left out", len(rows) - len(long), len(rows), patch
        )

    def asked(t: Trajectory) -> tuple[Trajectory, Hidden]:
        spare = max(len(t) - (window - n), 0)
        t = t[-(-spare // together) * together :]
        step = round((every or 0.0) * 1e6)
        future = t.time[-1] + step * np.arange(1, n + 1)
        nowhere = np.zeros(n)
        longer = Trajectory(t.user, np.append(t.time, future), np.append(t.lat, nowhere), np.append(t.lon, nowhere))
        hidden = nothing_hidden(len(longer))
        hidden.place[-n:] = True
        hidden.time[-n:] = every is None
        return longer, hidden

    parts = []
    for some in _chunks(long):
        pairs = [asked(found[int(row)]) for row in some]
        ways = teller.ways(pairs[0][1])
        told, metres = _sampled(teller, pairs, ways[0], samples, seed)
        parts += [
            _frame(int(row), t, np.arange(len(t) - n, len(t)), m) for row, t, m in zip(some, told, metres, strict=True)
        ]
    return pd.concat(parts, ignore_index=True).assign(step=np.tile(np.arange(1, n + 1), len(parts)))


def complete(
    run: Run | PathLike,
    data: PathLike,
    *,
    every: float,
    split: str | None = None,
    samples: int = 20,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Trajectories with their gaps filled. ``mobtk complete`` does the same.

    Args:
        run: a completer that learned to tell points at once, or its folder.
        data: folder of trajectories.
        every: seconds; between two points that are further apart in time than one and a half of it, points are put in.
        split: whose trajectories; all by default.
        samples: drawn to say how sure each point is; 0 for none.
        seed: of the samples.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        a row a point: ``trajectory`` (its row), ``user``, ``time`` (UTC), ``lat``, ``lon``, ``filled``, and ``metres_80``,
        within which of a filled point four of five samples lie.
    """
    run = open_run(run, "complete")
    if run.recipe.complete.onward == 1:
        raise BadInput(f"the model of run {run.path} tells points step by step only; fill gaps with one of recipe completer")
    if not every > 0:
        raise BadInput(f"points are some time above 0 apart, not {every:g} s")
    _check_samples(samples)
    found = Trajectories(data)
    teller = Teller(run, found.info.timezone, find_device(device))
    rows = found.rows(split) if split else np.arange(len(found))
    if not len(rows):
        raise BadInput(f"split {split!r} of {found.path} has no trajectories")
    window, parts, left = run.recipe.complete.window, [], 0
    for some in _chunks(rows):
        whole = [_with_gaps(found[int(row)], every) for row in some]
        pieces = [(i, *piece) for i, (_, gaps) in enumerate(whole) for piece in _around_gaps(gaps, window)]
        fits = [p for p in pieces if p[4] - p[3] <= window]
        left += sum(int(whole[i][1][c:d].sum()) for i, c, d, a, b in pieces if b - a > window)
        pairs = [(whole[i][0][a:b], _places(whole[i][1][a:b])) for i, _, _, a, b in fits]
        told, metres = _sampled(teller, pairs, "at once", samples, seed) if pairs else ([], [])
        sure = [np.full(len(t), np.nan) for t, _ in whole]
        answered = [~gaps for _, gaps in whole]
        for (i, c, d, a, _), t, m in zip(fits, told, metres, strict=True):
            gap = np.flatnonzero(whole[i][1][c:d]) + c
            whole[i][0].lat[gap], whole[i][0].lon[gap], sure[i][gap] = t.lat[gap - a], t.lon[gap - a], m[gap - a]
            answered[i][gap] = True
        for row, (t, gaps), m, known in zip(some, whole, sure, answered, strict=True):
            parts.append(_frame(int(row), t, np.flatnonzero(known), m).assign(filled=gaps[known]))
    if left:
        log.warning(
            "%d points were not put in: they lie in gaps of more than the %d points that the model reads", left, window
        )
    return pd.concat(parts, ignore_index=True)


def _with_gaps(t: Trajectory, every: float) -> tuple[Trajectory, NDArray[np.bool_]]:
    """A trajectory with points put in where there are none for long, nowhere yet; and which these are."""
    step = round(every * 1e6)
    more = np.maximum(np.round(np.diff(t.time) / step).astype(np.int64) - 1, 0)
    more[np.diff(t.time) <= 1.5 * step] = 0
    first = np.arange(len(t)) + np.append(0, np.cumsum(more))
    gaps = np.ones(len(t) + int(more.sum()), bool)
    gaps[first] = False
    since = np.arange(len(gaps)) - np.maximum.accumulate(np.where(gaps, 0, np.arange(len(gaps))))
    parts = np.append(more, 0)[np.cumsum(~gaps) - 1] + 1
    gone = np.append(np.diff(t.time), 0)[np.cumsum(~gaps) - 1]
    time = t.time[np.cumsum(~gaps) - 1] + gone * since // parts
    lat, lon = np.zeros(len(gaps)), np.zeros(len(gaps))
    lat[~gaps], lon[~gaps] = t.lat, t.lon
    return Trajectory(t.user, time, lat, lon), gaps


def _around_gaps(gaps: NDArray[np.bool_], window: int) -> Iterator[tuple[int, int, int, int]]:
    """Stretches ``c`` to ``d`` from the first point of a gap to the last of that or a later one, half a window at most where
    a gap allows it; and pieces ``a`` to ``b`` around them, of a window at most, that begin with a shown point.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], gaps, [False]]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    i = 0
    while i < len(begins):
        j = i
        while j + 1 < len(ends) and ends[j + 1] - begins[i] <= window // 2:
            j += 1
        c, d = int(begins[i]), int(ends[j])
        b = min(len(gaps), d + max(1, (window - (d - c)) // 2))
        a = max(0, min(c - 1, b - window))
        a += int(np.argmin(gaps[a:]))
        yield c, d, a, max(b, min(len(gaps), a + window))
        i = j + 1


def _check_samples(samples: int) -> None:
    if samples < 0:
        raise BadInput(f"samples are 0 or more, not {samples}")


def _sampled(
    teller: Teller, pairs: Pairs, way: str, samples: int, seed: int
) -> tuple[list[Trajectory], list[NDArray[np.float64]]]:
    """What is told, and within how many metres of it four of five samples lie."""
    told = teller.tell(pairs, way)
    if not samples:
        return told, [np.full(len(t), np.nan) for t in told]
    generator = torch.Generator(teller.device).manual_seed(seed)
    drawn = [teller.tell(pairs, way, 1.0, generator) for _ in range(samples)]
    metres = []
    for i, t in enumerate(told):
        off = np.stack([distance(t.lat, t.lon, d[i].lat, d[i].lon) for d in drawn])
        metres.append(np.quantile(off, 0.8, axis=0))
    return told, metres


def _frame(row: int, t: Trajectory, points: NDArray[np.int64], metres: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trajectory": row,
            "user": t.user,
            "time": pd.to_datetime(t.time[points], unit="us", utc=True),
            "lat": t.lat[points],
            "lon": t.lon[points],
            "metres_80": metres[points],
        }
    )


def _apart(pairs: Pairs) -> tuple[list[Trajectory], list[Hidden]]:
    return [t for t, _ in pairs], [h for _, h in pairs]


def _known(hidden: Hidden) -> int:
    """Points before the first of which something is hidden."""
    asked = hidden.place | hidden.time
    return int(asked.argmax()) if asked.any() else len(asked)


def _is_end(hidden: Hidden) -> bool:
    """Whether all places are hidden from some point on, and nothing else is."""
    known = _known(hidden)
    return bool(known < len(hidden.place) and hidden.place[known:].all() and not hidden.absent.any())


def _cut(hidden: Hidden, first: int) -> Hidden:
    return Hidden(hidden.place[first:], hidden.time[first:], hidden.absent[first:])


def _places(which: NDArray[np.bool_]) -> Hidden:
    return Hidden(which, np.zeros(len(which), bool), np.zeros(len(which), bool))


def _joined(a: Trajectory, b: Trajectory) -> Trajectory:
    return Trajectory(b.user, np.append(a.time, b.time), np.append(a.lat, b.lat), np.append(a.lon, b.lon))


def _chunks(rows: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
    for at in range(0, len(rows), 16 * BATCH):
        yield tuple(int(r) for r in rows[at : at + 16 * BATCH])
