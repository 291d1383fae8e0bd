"""What the tutorial asks and promises, as questions: ``mobtk experiment run trajfm/NAME``."""

import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from mobtk.baselines.points import fit_completions
from mobtk.completing import LEARNED, Teller
from mobtk.contracts import Hidden, Mask, Paths, PointTokenizer, PointTokens, State
from mobtk.data.loader import TrajectoryStream
from mobtk.data.trajectories import Trajectories, TrajectoriesInfo, Trajectory
from mobtk.data.walks import make_walks
from mobtk.errors import BadInput
from mobtk.experiments import Experiment, Lab, Outcome
from mobtk.geo import from_local
from mobtk.kernels import distance
from mobtk.metrics.points import skill
from mobtk.models.assemble import assemble_completer, build_part
from mobtk.models.completer import Completer
from mobtk.models.paths import collate, local, nothing_hidden, uncollate, windows
from mobtk.recipe import Part, Recipe
from mobtk.runs import Run, find_device
from mobtk_trajfm.recipes import MASKED, TRAJFM, TRAJGPT
from mobtk_trajfm.visits import made_up_visits, visit_trajectories

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"walks": 120, "epochs": 2, "width": 32, "window": 32, "ahead": 4, "pieces": 60},
    "cpu": {"walks": 4000, "epochs": 60, "width": 96, "window": 72, "ahead": 12, "pieces": 1000},
    "full": {"walks": 100_000, "epochs": 100, "width": 256, "window": 256, "ahead": 12, "pieces": 5000},
}
"""Made-up walks, where no data are given; passes over them, width and window of the models; points that are foretold, and
how many pieces are scored.
"""

STEPS = 500
"""In which one trajectory is to be known by heart."""
FAR = 250.0
"""Metres of a step that is taken for a jump."""


def sized(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe at the size of an experiment."""
    recipe = recipe.change("width", settings["width"]).change("complete.window", settings["window"])
    if "longest" in recipe.backbone.options:
        recipe = recipe.change("backbone.longest", max(recipe.backbone.options["longest"], settings["window"]))
    return recipe.change("training.completer.epochs", settings["epochs"]).change("training.completer.patience", 1000)


def _scores(lab: Lab, run: Run, masks: tuple[str, ...], **options: Any) -> dict[str, dict[str, dict[str, float]]]:
    """By mask and source, with as many points foretold as the size says."""
    options = {"options": {"last": {"points": lab.settings["ahead"]}}, "n": lab.settings["pieces"], **options}
    found: dict[str, dict[str, dict[str, float]]] = lab.completions(run, masks, **options)["scores"]
    return found


def _best(scores: Mapping[str, Mapping[str, float]], metric: str, *, model: bool) -> float:
    """The smallest error of the ways of the model, or of the baselines."""
    return min(s[metric] for name, s in scores.items() if name.startswith("model") == model)


def _ahead(lab: Lab, cases: Mapping[str, Recipe], data: Trajectories | None = None) -> list[dict[str, Any]]:
    """A row a case: errors of the next points, mean and spread over seeds; then those of the baselines."""
    rows: list[dict[str, Any]] = []
    others: dict[str, dict[str, float]] = {}
    for name, recipe in cases.items():
        found = []
        for seed in range(lab.seeds):
            run = lab.run(name, recipe, seed, data=data)
            scores = _scores(lab, run, ("last",))["last"]
            others = {k: v for k, v in scores.items() if not k.startswith("model")}
            found.append({m: _best(scores, m, model=True) for m in ("ade", "fde")})
        rows.append({"case": name, **_mean(found), "spread of ade": float(np.std([f["ade"] for f in found]))})
    best = min(s["ade"] for s in others.values())
    rows += [{"case": name, "ade": s["ade"], "fde": s["fde"]} for name, s in others.items()]
    return [{**row, "skill": skill(row["ade"], best)} for row in rows]


def _mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([f[key] for f in found])) for key in found[0]}


def _row(rows: list[dict[str, Any]], case: str) -> dict[str, Any]:
    return next(row for row in rows if row["case"] == case)


def _some(data: Trajectories, most: int, window: int, split: str = "train") -> list[Trajectory]:
    """Pieces of trajectories of a split."""
    rows = data.mixed(data.rows(split), np.random.default_rng(0))[:most]
    return [windows(data[int(row)], window)[0] for row in rows]


def codec(lab: Lab) -> Outcome:
    """Points of the earth as numbers and back, our way and as the published code does."""
    some = _some(lab.trajectories(), lab.settings["pieces"], lab.settings["window"])
    whole = [nothing_hidden(len(t)) for t in some]
    tokenizer = assemble_completer(sized(MASKED, lab.settings)).tokenizer
    paths = collate(some, whole, "UTC")
    tokenizer.fit(paths)
    tokens = tokenizer.onward(paths, 0, paths.time.shape[1], {})
    place = ((paths.place - tokens.place) / tokens.metres[..., None]).float()
    moment = ((paths.time - tokens.time) / tokens.seconds).asinh().float().double().sinh()
    back = uncollate(tokens.place + tokens.metres[..., None] * place, tokens.time + tokens.seconds * moment, some, whole)
    off = max(float(distance(a.lat, a.lon, b.lat, b.lon).max()) for a, b in zip(some, back, strict=True))
    late = max(float(np.abs(a.time - b.time).max()) for a, b in zip(some, back, strict=True)) / 1e6
    lat, lon, when = (np.concatenate([getattr(t, name) for t in some]) for name in ("lat", "lon", "time"))
    north = np.abs(lat) * 110_574  # about what UTM counts northwards
    rough = np.abs(north.astype(np.float32).astype(np.float64) - north).max()
    clock = np.abs((when / 1e6).astype(np.float32).astype(np.float64) - when / 1e6).max()
    degrees = distance(lat.astype(np.float32).astype(float), lon.astype(np.float32).astype(float), lat, lon).max()
    rows = [
        {"case": "steps in units of each walk", "metres": off, "seconds": late},
        {"case": "metres from the equator, seconds since 1970, float32", "metres": float(rough), "seconds": float(clock)},
        {"case": "degrees, float32", "metres": float(degrees), "seconds": None},
    ]
    good = off < 0.5 and late < 1e-3
    return Outcome(f"points come back to {off:.2g} m and {late:.2g} s; with float32 clocks {clock:.0f} s off", good, rows)


def deltas(lab: Lab) -> Outcome:
    """How large steps are."""
    some = _some(lab.trajectories(), 10 * lab.settings["pieces"], 10_000)
    steps = np.concatenate([np.diff(local(t)[1], axis=0) for t in some])
    seconds = np.concatenate([np.diff(t.time) / 1e6 for t in some])
    rows = [
        {"share": f"{q:g} %", "east (m)": float(np.percentile(steps[:, 0], q)),
         "north (m)": float(np.percentile(steps[:, 1], q)), "seconds": float(np.percentile(seconds, q))}
        for q in (0.1, 1, 50, 99, 99.9)
    ]  # fmt: skip
    far = float((np.linalg.norm(steps, axis=1) > FAR).mean())
    return Outcome(f"{far:.2%} of the steps are longer than {FAR:g} m", far < 0.01, rows)


def loader(lab: Lab) -> Outcome:
    """One pass with no, one and two workers, and one that is stopped half-way and goes on."""
    data = lab.trajectories()
    rows: list[dict[str, Any]] = []
    orders = {}
    for workers in (0, 1, 2):
        stream = TrajectoryStream(data.path, batch=16)
        started = time.perf_counter()
        seen = [
            (t.user, int(t.time[0])) for batch in DataLoader(stream, batch_size=None, num_workers=workers) for t in batch
        ]
        seconds = time.perf_counter() - started
        orders[workers] = seen
        points = sum(len(data[int(r)]) for r in stream.rows)
        rows.append({"case": f"{workers} workers", "trajectories": len(seen), "seen twice": len(seen) - len(set(seen)),
                     "points/s": points / seconds})  # fmt: skip
    stream = TrajectoryStream(data.path, batch=16)
    half = len(stream.rows) // 32
    stream.begin(0, done=half)
    rest = [(t.user, int(t.time[0])) for batch in DataLoader(stream, batch_size=None, num_workers=2) for t in batch]
    rows.append({"case": f"the rest after {half} batches", "trajectories": len(rest), "seen twice": 0, "points/s": None})
    once = all(len(o) == len(set(o)) == len(stream.rows) for o in orders.values())
    same = orders[0] == orders[1] == orders[2] and rest == orders[0][half * 16 :]
    return Outcome(
        f"each trajectory comes {'once' if once else 'more or less than once'} in a pass; the order is "
        f"{'the same' if same else 'another'} for any number of workers and after a stop",
        once and same,
        rows,
    )


def overfit_one(lab: Lab) -> Outcome:
    """One trajectory by heart."""
    one = max(_some(lab.trajectories(), 50, lab.settings["window"]), key=len)
    paths = collate([one], [nothing_hidden(len(one))], "UTC")
    rows: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = assemble_completer(TRAJFM.change("complete.window", lab.settings["window"]))
        model.tokenizer.fit(paths)
        optimizer = torch.optim.Adam(model.parameters())
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - step / STEPS)
            optimizer.zero_grad()
            model.train().loss(paths, onward=True)["place"].backward()
            optimizer.step()
            if (step + 1) % 25 == 0:
                told, _ = model.eval().next_points(paths)
                off = float((told - paths.place)[:, 1:].norm(dim=-1).mean())
                rows.append({"step": step + 1, "ade of next points (m)": off})
                if off < 1:
                    return Outcome(f"known by heart to a metre after {step + 1} steps", True, rows)
    return Outcome(f"not known by heart to a metre in {STEPS} steps", False, rows)


def autoencoder(lab: Lab) -> Outcome:
    """Steps through a linear map and back."""
    some = _some(lab.trajectories(), lab.settings["pieces"], lab.settings["window"])
    steps = torch.from_numpy(np.concatenate([np.diff(local(t)[1], axis=0) for t in some])).float()
    scale = steps.abs().mean()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 64), nn.Linear(64, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(200):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * (1 - step / 200)
            optimizer.zero_grad()
            (model(steps / scale) - steps / scale).square().mean().backward()
            optimizer.step()
        with torch.inference_mode():
            off = float((model(steps / scale) * scale - steps).square().sum(-1).mean().sqrt())
    rows = [
        {"case": "linear, 64 wide, 200 steps", "rmse (m)": off},
        {"case": "nothing said", "rmse (m)": float(steps.square().sum(-1).mean().sqrt())},
    ]
    return Outcome(f"steps come back with an RMSE of {off:.2g} m, which teaches the identity", off < 1, rows)


def delta_vs_absolute(lab: Lab) -> Outcome:
    """The same model with four kinds of targets."""
    base = sized(TRAJFM, lab.settings)
    absolute = base.change("tokenizer.target", "absolute")
    cases = {
        "delta": base,
        "velocity": base.change("tokenizer.target", "velocity"),
        "absolute, from the first point": absolute,
        "absolute, from the centre": _on_the_map(absolute),
    }
    rows = _ahead(lab, cases)
    a, b = _row(rows, "delta")["ade"], _row(rows, "absolute, from the first point")["ade"]
    return Outcome(f"changes are {b / a:.1f} times nearer than places: ADE {a:.4g} m against {b:.4g}", b > 2 * a, rows)


def _on_the_map(recipe: Recipe) -> Recipe:
    """Places from the centre of the data, not turned: then they are where they are."""
    return recipe.change("complete.origin", "centre").change("complete.turned", False)


TASKS = {"block": "ade", "last": "ade", "keep-every": "ade", "origin-destination": "time_mae", "travel-time": "time_mae"}


def masks(lab: Lab) -> Outcome:
    """A model for each mask and one for all of them, and what each can do."""
    base = sized(MASKED, lab.settings).change("complete.onward", 0.0)
    learned = ("random", "block", "key-points", "last", "modality", "all")
    rows = []
    for name in learned:
        names = [f"mobtk.{name}"] if name != "all" else [m.name for m in MASKED.complete.masks]
        recipe = base.change("complete.masks", [{"name": n} for n in names])
        found = [_scores(lab, lab.run(f"masks-{name}", recipe, seed), tuple(TASKS)) for seed in range(lab.seeds)]
        rows.append(
            {"learned": name} | {t: float(np.mean([_best(f[t], m, model=True) for f in found])) for t, m in TASKS.items()}
        )
    rows.append({"learned": "(best baseline)"} | {t: _best(found[0][t], m, model=False) for t, m in TASKS.items()})
    best = {task: min(rows[:-1], key=lambda row, task=task: row[task])["learned"] for task in TASKS}
    told = ", ".join(f"{task} by {name}" for task, name in best.items())
    near = all(rows[-2][task] <= 1.1 * min(row[task] for row in rows[:-1]) for task in TASKS)
    return Outcome(
        f"told best are {told}; the one that learned all is within a tenth of the best everywhere: {near}", near, rows
    )


def positions(lab: Lab) -> Outcome:
    """What a model is told of where its tokens stand, and what becomes of it beyond the length it learned: the same points
    are foretold from as many as it learned and from twice as many.
    """
    base = sized(TRAJFM, lab.settings)
    short = lab.settings["window"] // 2
    rows: list[dict[str, Any]] = []
    for how in ("none", "learned", "sinusoidal", "rotary", "rotary-time", "rotary-place"):
        recipe = base.change("complete.window", short)
        recipe = recipe.change("backbone.positions", how).change("backbone.longest", short)
        found = []
        for seed in range(lab.seeds):
            run = lab.run(f"positions-{how}", recipe, seed)
            long = [(t, h) for t, h in _asked(lab, run, "last", 2 * short) if len(t) == 2 * short]
            near = [(t[short:], _begin(h, 2 * short, short)) for t, h in long]
            row = {"ade": _told_error(lab, run, near) if near else float("nan")}
            try:
                row["ade, twice as long"] = _told_error(lab, run, long) if long else float("nan")
            except BadInput:  # a table has no positions for so many
                row["ade, twice as long"] = float("inf")
            found.append(row)
        rows.append({"case": how, **_mean(found), "spread of ade": float(np.std([f["ade"] for f in found]))})
        rows[-1]["ratio"] = rows[-1]["ade, twice as long"] / rows[-1]["ade"]
    if near:
        rows += [{"case": name, "ade": error} for name, error in _baselines(lab, run, _last(lab), near).items()]
    apart = [row["ade"] for row in rows if "ratio" in row]
    refused = [row["case"] for row in rows if np.isinf(row.get("ratio", 0))]
    if not near:
        return Outcome(f"no trajectory has {2 * short} points; give it longer ones with --data", None, rows)
    best = min((row for row in rows if "ratio" in row), key=lambda row: row["ade"])["case"]
    differ = (max(apart) - min(apart)) / min(apart)
    return Outcome(
        f"with steps as targets positions differ by {differ:.1%} in ADE ({best} is the nearest); beyond their length "
        f"refuse: {', '.join(refused) or 'none'}",
        differ < 0.05 if lab.seeds > 1 else None,
        rows,
    )


def _last(lab: Lab) -> Part:
    return Part("last", {"points": lab.settings["ahead"]})


def _baselines(lab: Lab, run: Run, mask: Part, pairs: list[tuple[Trajectory, Hidden]]) -> dict[str, float]:
    """Mean metres of each baseline."""
    given = fit_completions(_some(run.trajectories(), LEARNED, lab.settings["window"]), build_part("mask", mask))
    return {name: float(_errors([one(t, h) for t, h in pairs], pairs).mean()) for name, one in given.items()}


def _told_error(lab: Lab, run: Run, pairs: list[tuple[Trajectory, Hidden]]) -> float:
    """Mean metres of what is told step by step."""
    return float(_errors(_teller(lab, run).tell(pairs, "step by step"), pairs).mean())


def _teller(lab: Lab, run: Run, data: Trajectories | None = None) -> Teller:
    return Teller(run, (data or run.trajectories()).info.timezone, find_device(lab.device))


def patches(lab: Lab) -> Outcome:
    """More points a token."""
    rows: list[dict[str, Any]] = []
    ahead = lab.settings["ahead"]
    for patch in (1, 2, 4, 8):
        recipe = sized(TRAJFM, lab.settings).change("tokenizer.patch", patch)
        found = []
        for seed in range(lab.seeds):
            run = lab.run(f"patches-{patch}", recipe, seed)
            pairs = [(t, h) for t, h in _asked(lab, run, "last") if len(t) >= ahead + 8]
            teller = _teller(lab, run)
            started = time.process_time()
            told = teller.tell(pairs, "step by step")
            rate = ahead * len(pairs) / (time.process_time() - started)
            ways = [(_way(a, h), _way(b, h)) for (b, h), a in zip(pairs, told, strict=True)]
            found.append({"ade": float(_errors(told, pairs).mean()), "points told per core-second": rate,
                          "path, told over true": sum(a for a, _ in ways) / max(sum(b for _, b in ways), 1e-9)})  # fmt: skip
        tokens = -(-lab.settings["window"] // patch)
        spread = float(np.std([f["ade"] for f in found]))
        rows.append({"patch": patch, "tokens": tokens, **_mean(found), "spread of ade": spread})
    rows += [{"patch": name, "ade": error} for name, error in _baselines(lab, run, _last(lab), pairs).items()]
    one, four = rows[0], rows[2]
    return Outcome(
        f"four points a token: ADE {four['ade']:.4g} m against {one['ade']:.4g}, and "
        f"{four['points told per core-second'] / one['points told per core-second']:.1f} times as many points a second",
        four["ade"] < 1.05 * one["ade"],
        rows,
    )


def _asked(
    lab: Lab, run: Run, mask: str, window: int | None = None, data: Trajectories | None = None
) -> list[tuple[Trajectory, Hidden]]:
    """What a mask hides of pieces of the test split, as an evaluation asks."""
    data, teller = data or run.trajectories(), _teller(lab, run, data)
    made: Mask = build_part("mask", _last(lab) if mask == "last" else Part(mask))
    pieces = teller.pieces(data, data.rows("test"), window or lab.settings["window"])
    return teller.ask(pieces, made, lab.settings["pieces"], 0)


def _way(t: Trajectory, hidden: Hidden) -> float:
    """Metres along the hidden points of a trajectory."""
    at = np.flatnonzero(hidden.place)
    at = np.append(at[0] - 1, at)
    return float(distance(t.lat[at[:-1]], t.lon[at[:-1]], t.lat[at[1:]], t.lon[at[1:]]).sum())


def _errors(told: list[Trajectory], pairs: list[tuple[Trajectory, Hidden]]) -> NDArray[np.float64]:
    """Mean metres of each trajectory."""
    return np.array([
        distance(t.lat[h.place], t.lon[h.place], a.lat[h.place], a.lon[h.place]).mean()
        for a, (t, h) in zip(told, pairs, strict=True)
    ])  # fmt: skip


def continuous_vs_discrete(lab: Lab) -> Outcome:
    """A number, a mixture or a cell."""
    base = sized(TRAJFM, lab.settings)
    cases = {head: base.change("tokenizer.head", head) for head in ("regression", "mixture", "cells")}
    rows = _ahead(lab, cases)
    for name in cases:
        runs = [lab.run(name, cases[name], seed) for seed in range(lab.seeds)]
        _row(rows, name)["nats a point"] = float(np.mean([min(e["valid_loss"] for e in run.history()) for run in runs]))
    numbers = min(_row(rows, n)["ade"] for n in ("regression", "mixture"))
    cells = _row(rows, "cells")["ade"]
    return Outcome(f"numbers are nearer than cells: ADE {numbers:.4g} m against {cells:.4g}", numbers < cells, rows)


def transfer(lab: Lab) -> Outcome:
    """Learned here, tested elsewhere; and the same test walks moved by 58 km."""
    home = lab.trajectories()
    away = [Trajectories(path) for path in lab.others]
    base = sized(TRAJFM, lab.settings)
    cases = {
        "delta": base,
        "delta, fixed units": base.change("tokenizer.running", False),
        "absolute, from the centre": _on_the_map(base.change("tokenizer.target", "absolute")),
    }
    rows: list[dict[str, Any]] = []
    best: dict[str, float] = {}
    for name, recipe in cases.items():
        found = []
        for seed in range(lab.seeds):
            run = lab.run(name, recipe, seed, data=home)
            best["ade"] = _best(_scores(lab, run, ("last",))["last"], "ade", model=False)
            pairs = _asked(lab, run, "last")
            teller = _teller(lab, run)
            here = _errors(teller.tell(pairs, "step by step"), pairs).mean()
            moved = [(_moved(t, 58_000.0), h) for t, h in pairs]
            row = {"ade": here, "moved by 58 km": _errors(teller.tell(moved, "step by step"), moved).mean() / here}
            for other in away:
                there = _scores(lab, run, ("last",), data=other.path)["last"]
                own = lab.run(f"{name} in {other.info.name}", recipe, seed, data=other)
                native = _scores(lab, own, ("last",))["last"]
                row[f"ade in {other.info.name}"] = error = _best(there, "ade", model=True)
                row[f"over learned there, {other.info.name}"] = error / _best(native, "ade", model=True)
                best[f"ade in {other.info.name}"] = _best(there, "ade", model=False)
            found.append(row)
        rows.append({"case": name, **_mean(found)})
    lab.used = home
    exact = abs(rows[0]["moved by 58 km"] - 1) < 1e-3
    ratios = [v for k, v in rows[0].items() if k.startswith("over learned")]
    told = (
        f"; elsewhere its errors are {', '.join(f'{r:.2f}' for r in ratios)} times those of a model learned there"
        if ratios
        else ""
    )
    return Outcome(
        f"moved by 58 km, errors change by a factor of {rows[0]['moved by 58 km']:.2f} (absolute: "
        f"{rows[-1]['moved by 58 km']:.2f}){told}",
        exact and all(r < 1.3 for r in ratios),
        [*rows, {"case": "(best baseline)", **best}],
    )


SHARES = (0.01, 0.1, 1.0)
"""Of the training split, on which a model is taught from nothing, or from what another one knows."""


def pretraining(lab: Lab) -> Outcome:
    """One model that learned one set of data, against models taught from nothing, on shares of another set."""
    home = lab.trajectories()
    if lab.others:
        other = Trajectories(lab.others[0])
    else:
        path = lab.folder / f"other-walks-{lab.settings['walks']}"
        other = Trajectories(path) if path.exists() else make_walks(path, n=lab.settings["walks"], seed=1)
    base = sized(MASKED, lab.settings)
    rows: list[dict[str, Any]] = []
    for share in SHARES:
        some = _share(other, lab.folder / f"{other.info.name}-{share:g}".replace(" ", "-"), share)
        n = len(some.rows("train"))
        recipe = base.change("training.completer.batch", min(64, max(1, n // 4)))
        recipe = recipe.change("training.completer.epochs", round(lab.settings["epochs"] / share**0.5))
        for begun in (False, True):
            name = f"{'begun with another' if begun else 'from nothing'}, {share:.0%}"
            found = []
            for seed in range(lab.seeds):
                start = lab.run("pretrained", base, seed, data=home) if begun else None
                taught = recipe.change("training.completer.lr", 1e-3) if begun else recipe
                scores = _scores(lab, lab.run(name, taught, seed, data=some, start=start), tuple(TASKS))
                found.append({task: _best(scores[task], metric, model=True) for task, metric in TASKS.items()})
            rows.append({"case": name, "trajectories": n, **_mean(found)})
    rows.append({"case": "(best baseline)"} | {t: _best(scores[t], m, model=False) for t, m in TASKS.items()})
    lab.used = other
    told, pays = [], []
    for share, nothing, tuned in zip(SHARES, rows[:-1:2], rows[1:-1:2], strict=True):
        better = [task for task in TASKS if tuned[task] < nothing[task]]
        pays.append(len(better) > len(TASKS) / 2)
        told.append(f"at {share:.0%} in {', '.join(better) or 'nothing'}")
    return Outcome(f"beginning with another model is nearer {'; '.join(told)}", pays[0], rows)


def _share(data: Trajectories, path: Path, share: float) -> Trajectories:
    """The same trajectories, with a share of the training split."""
    if path.exists():
        return Trajectories(path)
    train = np.random.default_rng(0).permutation(data.rows("train"))
    kept = {
        "train": np.sort(train[: max(1, round(share * len(train)))]),
        "valid": data.rows("valid"),
        "test": data.rows("test"),
    }
    columns = [(data[int(row)], split) for split, rows in kept.items() for row in rows]
    made = pa.table(
        {"user": [t.user for t, _ in columns], "split": [split for _, split in columns]}
        | {name: [getattr(t, name) for t, _ in columns] for name in ("time", "lat", "lon")}
    )
    info = TrajectoriesInfo(f"{share:.0%} of {data.info.name}", data.info.timezone, sources=data.info.sources)
    return Trajectories.write(path, info, [made])


def _moved(t: Trajectory, metres: float) -> Trajectory:
    """The same walk so far to the north-east."""
    place = local(t)[1]
    begin = from_local(np.array([metres, metres]) / np.sqrt(2), (float(t.lat[0]), float(t.lon[0])))
    lat, lon = from_local(place, (float(begin[0]), float(begin[1])))
    return Trajectory(t.user, t.time, lat, lon)


def objective(lab: Lab) -> Outcome:
    """Next steps against 15 % of the points in segments, asked for a hidden block."""
    step = sized(TRAJFM, lab.settings)
    segments = step.change("complete.masks", [{"name": "mobtk.segments"}]).change("complete.onward", 0.0)
    rows: list[dict[str, Any]] = []
    errors: dict[str, NDArray[np.float64]] = {}
    for name, recipe in {"next step": step, "segments": segments}.items():
        run = lab.run(f"objective-{name.replace(' ', '-')}", recipe)
        pairs = _asked(lab, run, "block")
        teller = _teller(lab, run)
        if name == "next step":  # it goes on into the block and knows nothing of its end
            cut = [(t[: _end(h)], _begin(h, _end(h))) for t, h in pairs]
            errors[name] = _errors(teller.tell(cut, "step by step"), cut)
        else:
            errors[name] = _errors(teller.tell(pairs, "at once"), pairs)
        rows.append({"case": name, "ade of the block": float(errors[name].mean())})
    rows += [{"case": k, "ade of the block": v} for k, v in _baselines(lab, run, Part("block"), pairs).items()]
    apart = errors["next step"] - errors["segments"]
    half = 1.96 * float(apart.std(ddof=1)) / np.sqrt(len(apart))
    return Outcome(
        f"who learned segments is {apart.mean():.4g} ± {half:.2g} m nearer in a hidden block than who learned next steps "
        f"and goes on into it (95 %, paired over {len(apart)} pieces)",
        bool(apart.mean() > half),
        rows,
    )


def _end(hidden: Hidden) -> int:
    return int(np.flatnonzero(hidden.place)[-1]) + 1


def _begin(hidden: Hidden, n: int, first: int = 0) -> Hidden:
    return Hidden(hidden.place[first:n], hidden.time[first:n], hidden.absent[first:n])


def collapse(lab: Lab) -> Outcome:
    """How long the steps are that are told, against the true ones, and whether they lean to one side."""
    rows: list[dict[str, Any]] = []
    for name, head in {"regression": "regression", "mixture": "mixture"}.items():
        run = lab.run(name, sized(TRAJFM, lab.settings).change("tokenizer.head", head))
        model = run.completer()
        some = _some(run.trajectories(), lab.settings["pieces"], lab.settings["window"], "test")
        paths = collate(some, [nothing_hidden(len(t)) for t in some], run.trajectories().info.timezone, origin=run.origin())
        told, _ = model.next_points(paths)
        there = (torch.arange(paths.time.shape[1]) < paths.lengths[:, None])[:, 1:]
        said = (told[:, 1:] - paths.place[:, :-1])[there]
        true = paths.place.diff(dim=1)[there]
        drift = (said - true).mean(0)
        rows.append({"case": name, "told over true length": float(said.norm(dim=-1).mean() / true.norm(dim=-1).mean()),
                     "bias east (m)": float(drift[0]), "bias north (m)": float(drift[1])})  # fmt: skip
    least = min(row["told over true length"] for row in rows)
    return Outcome(
        f"steps told are {least:.0%} as long as true ones or longer (below 30 % is a collapse)", least >= 0.3, rows
    )


def leak(lab: Lab) -> Outcome:
    """Visits whose durations nothing foretells: who is below the entropy has seen them."""
    data = lab.folder / f"visits-{lab.settings['walks']}"
    if not data.exists():
        visit_trajectories(made_up_visits(lab.settings["walks"] // 4), data)
    found = Trajectories(data)
    lab.used = found
    floor = 1 + float(np.log(2))  # nats of an exponential distribution with a mean of two hours
    rows: list[dict[str, Any]] = []
    for name in ("visits", "with the published leak"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = assemble_completer(
                TRAJGPT.change("width", 32).change("backbone.depth", 1).change("backbone.dropout", 0.0)
            )
            if name != "visits":
                model.tokenizer = Leaking(model.tokenizer, 32)
            train, test = (_visits(found, split) for split in ("train", "test"))
            model.tokenizer.fit(train)
            optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
            for step in range(STEPS):
                some = torch.randint(len(train.place), (32,))
                optimizer.zero_grad()
                sum(model.train().loss(_of(train, some), onward=True).values(), torch.zeros(())).backward()
                for group in optimizer.param_groups:
                    group["lr"] = 3e-3 * (1 - step / STEPS)
                optimizer.step()
        nats = duration_nats(model.eval(), test)
        rows.append({"case": name, "nats a duration (hours)": nats, "below the entropy": floor - nats})
    rows.append({"case": "entropy", "nats a duration (hours)": floor, "below the entropy": 0.0})
    ours, leaking = rows[0]["below the entropy"], rows[1]["below the entropy"]
    return Outcome(
        f"durations that cannot be foretold are told with {-ours:.2f} nats more than their entropy; with the published "
        f"leak, with {leaking:.2f} nats less, which is impossible without the answer",
        ours < 0.02 < leaking,
        rows,
    )


def _visits(data: Trajectories, split: str) -> Paths:
    some = [data[int(row)] for row in data.rows(split)]
    hidden = []
    for t in some:
        h = nothing_hidden(len(t))
        h.time[1:] = True
        hidden.append(h)
    return collate(some, hidden, data.info.timezone, origin=(40.0, 116.0))


def _of(paths: Paths, rows: torch.Tensor) -> Paths:
    """Some trajectories of a batch."""
    return Paths(**{f.name: getattr(paths, f.name)[rows] for f in fields(Paths)})


def duration_nats(model: Completer, paths: Paths) -> float:
    """Nats of a duration in hours, a mean over the departures."""
    with torch.inference_mode():
        time = model.losses(paths, onward=True)[1] + (model.tokens(paths, onward=True).seconds / 3600).log()
    index = torch.arange(time.shape[1])
    return float(time[(index % 2 == 1) & (index < paths.lengths[:, None])].mean())


class Leaking(PointTokenizer):
    """A tokenizer that reads of each point when it is, which is what it is asked, as the time heads of TrajGPT's published
    code do.
    """

    patch = 1

    def __init__(self, sound: PointTokenizer, width: int) -> None:
        super().__init__()
        self.sound, self.answer = sound, nn.Linear(1, width)
        self.place_head, self.time_head = sound.place_head, sound.time_head

    def fit(self, paths: Paths) -> None:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        self.sound.fit(paths)

    def at_once(self, paths: Paths) -> PointTokens:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        return self.sound.at_once(paths)

    def onward(self, paths: Paths, first: int, last: int, state: State) -> PointTokens:
        """See :class:`~mobtk.contracts.PointTokenizer`; with the answer."""
        tokens = self.sound.onward(paths, first, last, state)
        answer = (paths.time[:, first:last] - tokens.time) / tokens.seconds
        return replace(tokens, inputs=tokens.inputs + self.answer(answer[..., None].float()))

    def apart(self, hidden: torch.Tensor) -> torch.Tensor:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        return self.sound.apart(hidden)

    def knowing(self, hidden: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        return self.sound.knowing(hidden, place)


LEAK = Experiment("Are durations that cannot be foretold foretold?", leak, SIZES)
CODEC = Experiment("Do points survive being made numbers?", codec, SIZES)
DELTAS = Experiment("Are steps of a bounded size?", deltas, SIZES)
LOADER = Experiment("Does each trajectory come once in a pass, for any number of workers?", loader, SIZES)
OVERFIT_ONE = Experiment("Can the model learn one trajectory by heart?", overfit_one, SIZES)
AUTOENCODER = Experiment("Can a linear map give steps back?", autoencoder, SIZES)
DELTA_VS_ABSOLUTE = Experiment("Are steps better targets than places?", delta_vs_absolute, SIZES, seeded=True)
MASKS = Experiment("Which mask teaches what?", masks, SIZES, seeded=True)
POSITIONS = Experiment("Do positions matter, and which reach beyond the length they learned?", positions, SIZES, seeded=True)
PATCHES = Experiment("What do patches cost, and what do they save?", patches, SIZES, seeded=True)
CONTINUOUS_VS_DISCRETE = Experiment("Are numbers better than cells?", continuous_vs_discrete, SIZES, seeded=True)
TRANSFER = Experiment("Does a model go elsewhere?", transfer, SIZES, seeded=True, several=True)
PRETRAINING = Experiment(
    "Does it pay to begin with a model that learned other data?", pretraining, SIZES, seeded=True, several=True
)
OBJECTIVE = Experiment("Which objective completes better: next steps, or segments?", objective, SIZES)
COLLAPSE = Experiment("Do predictions shrink to the mean?", collapse, SIZES)
