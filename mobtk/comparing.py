"""A fair comparison: parts varied, everything else alike, at equal size, over seeds."""

import hashlib
import itertools
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct
from scipy import stats
from tqdm import tqdm

from mobtk._version import __version__
from mobtk.completing import evaluate_completer
from mobtk.data.kinds import open_dataset
from mobtk.data.shards import Workers
from mobtk.errors import BadInput, MobtkError
from mobtk.evaluation import evaluate
from mobtk.explaining import explain
from mobtk.forecasting import evaluate_forecaster
from mobtk.generation import generate
from mobtk.plugins import loaded, registry
from mobtk.recipe import PARTS, Recipe
from mobtk.report import figures
from mobtk.runs import Data, Run, built_in, find_recipe, fit_recipe, identity
from mobtk.storage import PathLike, fingerprint, to_json, write_text
from mobtk.tables import aligned
from mobtk.training import train

log = logging.getLogger("mobtk")

MATCH = ("params", "compute", "none")
STEP, WIDEST = 4, 1024
"""Widths that are tried to match a size, and the largest."""
FAR = 0.1
"""A share by which sizes may differ before it is said."""

MEASURE = {
    "generate": "mean Jensen-Shannon divergence of distance, radius, duration and dailyloc",
    "forecast": "mean absolute error",
    "complete": "mean error in metres of the last points, told the better way",
}


class Case(Struct):
    """One combination.

    Args:
        choice: what was varied, by key.
        recipe: with its choice and its width, as TOML.
        width: ``D``.
        parameters: of the model.
        flop: of the matrix products of one pass.
    """

    choice: dict[str, Any]
    recipe: str
    width: int
    parameters: int
    flop: int

    @property
    def name(self) -> str:
        """What was varied, in words."""
        return ", ".join(f"{key}={value}" for key, value in self.choice.items())


class _Job(Struct):
    """What a worker must know."""

    folder: str
    data: dict[str, str]
    cases: list[Case]
    seeds: int
    device: str
    threads: int | None


def compare(
    recipe: Recipe | PathLike = "default",
    vary: Mapping[str, Sequence[Any]] | None = None,
    *,
    match: str = "params",
    seeds: int = 3,
    out: PathLike = "comparison",
    data: PathLike | None = None,
    weeks: int = 10_000,
    changes: Mapping[str, Any] | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Train and score every valid combination of parts. ``mobtk compare`` does the same.

    What is done is not done again, so an interrupted comparison goes on where it was.

    Args:
        recipe: where every combination begins.
        vary: settings and the values each takes, such as ``{"backbone": ["transformer", "mamba"]}``.
        match: ``params`` or ``compute`` (operations of a pass): widths are chosen so that each combination has as many as
            the first valid one; or ``none``.
        seeds: trainings of each combination.
        out: folder of the comparison.
        data: a dataset; the built-in one of the task if not given.
        weeks: size of the built-in data.
        changes: settings that all combinations have.
        workers: processes that share the work, by Dask.
        scheduler: address of a Dask scheduler whose workers do it.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        what goes into ``comparison.json``: a row a combination with its score in each seed, best first; what was left out
        and why; the floor and baselines.

    Raises:
        BadInput: nothing is varied, no combination is valid, or the folder holds another comparison.
    """
    if match not in MATCH:
        raise BadInput(f"match {match!r} is not one of {', '.join(MATCH)}")
    if not vary or not all(vary.values()):
        raise BadInput("nothing is varied; say what, such as --vary backbone=transformer,mamba")
    if seeds < 1:
        raise BadInput(f"seeds is at least 1, not {seeds}")
    if data is not None and any(key.split(".")[0] == "mapper" for key in vary):
        raise BadInput("the data given have a mapper, so it cannot be varied; leave --data out, or the mapper")
    if "training.seed" in vary or ("width" in vary and match != "none"):
        raise BadInput("seeds are varied by --seeds, and widths by --match; to vary the width itself, --match none")
    folder = Path(out)
    for path in (folder, data):
        if path is not None:
            loaded().add_beside(path)
    for kind in set(vary) & set(PARTS):
        for name in vary[kind]:
            registry().find(kind, str(name))  # a misspelt one is no invalid combination
    base = find_recipe(recipe)
    for key, value in (changes or {}).items():
        base = base.change(key, value)
    given = open_dataset(data) if data is not None else None
    if given is not None:
        base = fit_recipe(base, given)
    plan = {
        "recipe": base.dumps(), "vary": {k: list(v) for k, v in vary.items()}, "match": match, "seeds": seeds,
        "data": identity(given) if given is not None else weeks, "mobtk": __version__, "plugins": _plugins(),
    }  # fmt: skip
    _refuse_other(folder, plan)
    cases, left_out, places = _cases(folder, base, vary, match, given, weeks)
    write_text(folder / "plan.json", to_json(plan))
    threads = max(1, (torch.get_num_threads() or 1) // workers) if workers > 1 else None
    job = _Job(str(folder), places, cases, seeds, device, threads)
    with Workers(workers, scheduler) as many:
        many.run(_one, job, list(range(len(cases) * seeds)), "trainings")
    result = _result(folder, cases, seeds, left_out, plan)
    write_text(folder / "comparison.json", to_json(result))
    figures.comparison(result, folder / "comparison.png")
    return result


def _plugins() -> dict[str, str]:
    """What is installed, and of single files what they hold: results of other code are not mixed with these."""
    return {
        p.name: f"{p.origin} {fingerprint(Path(p.origin))}" if p.of_file else p.origin
        for p in loaded().plugins
        if not p.problem
    }


def _refuse_other(folder: Path, plan: dict[str, Any]) -> None:
    """Go on with the same comparison only."""
    file = folder / "plan.json"
    if file.is_file():
        kept = msgspec.json.decode(file.read_bytes())
        if other := [key for key, value in msgspec.json.decode(to_json(plan)).items() if kept.get(key) != value]:
            raise BadInput(
                f"{folder} holds another comparison (see {', '.join(other)}); give this one another folder with -o"
            )
    elif folder.exists() and any(f.name not in ("data", "cases.json") for f in folder.iterdir()):
        raise BadInput(f"{folder} holds other things than a comparison; choose another folder with -o")


def _cases(
    folder: Path, base: Recipe, vary: Mapping[str, Sequence[Any]], match: str, given: Data | None, weeks: int
) -> tuple[list[Case], list[dict[str, str]], dict[str, str]]:
    """The valid combinations at their widths, what is left out and why, and where the data of each mapper are."""
    file = folder / "cases.json"
    if file.is_file() and (folder / "plan.json").is_file():
        kept = msgspec.json.decode(file.read_bytes())
        places = {key: str(given.path.resolve()) for key in kept["data"]} if given is not None else kept["data"]
        return msgspec.convert(kept["cases"], list[Case]), kept["left_out"], places
    found: list[Case] = []
    left_out: list[dict[str, str]] = []
    places = {}
    budget: int | None = None
    for values in tqdm(list(itertools.product(*vary.values())), desc="sizes", delay=2, leave=False, unit="combination"):
        choice = dict(zip(vary, values, strict=True))
        try:
            recipe = _chosen(base, choice)
            dataset = given or _data(folder, recipe, weeks, places)
            places.setdefault(_map(recipe), str(dataset.path.resolve()))
            case = _at_width(choice, recipe, dataset, recipe.width)
            if match != "none" and budget is not None:
                case = _matched(choice, recipe, dataset, match, budget, case)
        except Exception as error:  # parts of others may raise anything
            why = str(error) if isinstance(error, MobtkError) else f"{type(error).__name__}: {error}"
            left_out.append({"choice": Case(choice, "", 0, 0, 0).name, "why": why})
            continue
        budget = budget if budget is not None else _size(case, match)
        found.append(case)
    if not found:
        raise BadInput(f"no combination is valid; the first: {left_out[0]['why']}")
    write_text(file, to_json({"cases": msgspec.to_builtins(found), "left_out": left_out, "data": places}))
    return found, left_out, places


def _chosen(base: Recipe, choice: Mapping[str, Any]) -> Recipe:
    """The recipe with a choice; a part that it has already keeps its options."""
    for key, value in choice.items():
        if key in PARTS and getattr(base, key).name.rpartition(".")[2] == str(value).rpartition(".")[2]:
            continue
        base = base.change(key, value)
    return base


def _map(recipe: Recipe) -> str:
    """What tells the maps of recipes apart."""
    return to_json(msgspec.to_builtins(recipe.mapper)) if recipe.task == "generate" else ""


def _data(folder: Path, recipe: Recipe, weeks: int, places: Mapping[str, str]) -> Data:
    """The built-in data of a task, once for each map."""
    if known := places.get(_map(recipe)):
        return open_dataset(known)
    which = f"{recipe.task} {weeks} {_map(recipe)}"  # so that the data of a mistaken try are not taken for these
    here = folder / "data" / hashlib.sha256(which.encode()).hexdigest()[:8]
    return open_dataset(here / "data") if (here / "data" / "dataset.toml").is_file() else built_in(here, recipe, weeks)


def _at_width(choice: dict[str, Any], recipe: Recipe, dataset: Data, width: int) -> Case:
    recipe = recipe.change("width", width)
    with tempfile.TemporaryDirectory() as folder:
        boxes = explain(Run.create(Path(folder) / "run", recipe, dataset)).boxes
    return Case(choice, recipe.dumps(), width, sum(b.parameters for b in boxes), sum(b.flop for b in boxes))


def _size(case: Case, match: str) -> int:
    return case.flop if match == "compute" else case.parameters


def _matched(choice: dict[str, Any], recipe: Recipe, dataset: Data, match: str, budget: int, first: Case) -> Case:
    """The case at the width whose size is nearest to a budget; sizes grow with the width."""
    tried = {first.width: first}

    def size(width: int) -> float:
        if width not in tried:
            try:
                tried[width] = _at_width(choice, recipe, dataset, width)
            except (MobtkError, ValueError):  # such as a width that heads do not divide
                return float("nan")
        return _size(tried[width], match)

    low, high = 1, WIDEST // STEP
    while high - low > 1:
        middle = (low + high) // 2
        found = size(middle * STEP)
        for near in (1, -1, 2, -2):
            if not np.isnan(found):
                break
            found = size((middle + near) * STEP)
        if np.isnan(found) or found > budget:
            high = middle
        else:
            low = middle
    for width in (low * STEP, high * STEP):
        size(width)
    return min(tried.values(), key=lambda case: abs(_size(case, match) - budget))


def _one(job: _Job, number: int) -> None:
    """Train and score one combination with one seed, unless that is done."""
    index, seed = divmod(number, job.seeds)
    case = job.cases[index]
    name = f"{index}-{re.sub('[^A-Za-z0-9.]+', '-', case.name)}-{seed}"
    folder = Path(job.folder)
    file = folder / "scores" / f"{name}.json"
    if file.is_file():
        return
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    recipe = Recipe.loads(case.recipe).change("training.seed", seed)
    path = folder / "runs" / name
    run = Run(path) if path.exists() else Run.create(path, recipe, open_dataset(job.data[_map(recipe)]))
    train(run, resume=(path / "state").exists(), device=job.device)
    log.info("%s, seed %d: trained", case.name, seed)
    write_text(file, to_json({"case": index, "seed": seed, **_score(run, job.device)}))


def _score(run: Run, device: str) -> dict[str, Any]:
    """The measure of the task, and of its floor and baselines."""
    if run.recipe.task == "forecast":
        scores = evaluate_forecaster(run, device=device)["scores"]
        return {"sources": {name: s["mae"] for name, s in scores.items()}}
    if run.recipe.task == "complete":
        scores = evaluate_completer(run, masks=["last"], device=device)["scores"]["last"]
        ways = [s["ade"] for name, s in scores.items() if name.startswith("model")]
        others = {name: s["ade"] for name, s in scores.items() if not name.startswith("model")}
        return {"sources": {"model": min(ways), **others}}
    generated = run.path / "generated.parquet"
    if not generated.exists():
        generate(run, max(1, len(run.dataset().rows("test")) // 2), generated, device=device, resume=True)
    scores = evaluate(run)["scores"]
    four = ("distance", "radius", "duration", "dailyloc")
    return {"sources": {name: float(np.mean([s[k]["mean"] for k in four])) for name, s in scores.items()}}


def _result(
    folder: Path, cases: list[Case], seeds: int, left_out: list[dict[str, str]], plan: Mapping[str, Any]
) -> dict[str, Any]:
    by_case: list[list[dict[str, Any]]] = [[] for _ in cases]
    for file in sorted((folder / "scores").glob("*.json")):
        score = msgspec.json.decode(file.read_bytes())
        by_case[score["case"]].append(score)
    rows: list[dict[str, Any]] = []
    for case, scores in zip(cases, by_case, strict=True):
        own = sorted(scores, key=lambda s: s["seed"])
        values = [s["sources"]["model"] for s in own]
        rows.append({
            "choice": case.choice, "width": case.width, "parameters": case.parameters, "flop": case.flop,
            "scores": values, "beside": {name: float(np.mean([s["sources"][name] for s in own]))
                                         for name in own[0]["sources"] if name != "model"},
            "mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        })  # fmt: skip
    rows.sort(key=lambda row: (not np.isfinite(row["mean"]), row["mean"]))
    task = Recipe.loads(cases[0].recipe).task
    return {
        "measure": MEASURE[task],
        "match": plan["match"],
        "seeds": seeds,
        "rows": rows,
        "beside": rows[0]["beside"] if len({_map(Recipe.loads(case.recipe)) for case in cases}) == 1 else {},
        "left_out": left_out,
        "verdict": _verdict(rows, plan["match"]),
        "plan": dict(plan),
    }


def _verdict(rows: list[dict[str, Any]], match: str) -> str:
    def name(row: Mapping[str, Any]) -> str:
        return ", ".join(f"{k}={v}" for k, v in row["choice"].items())

    if not np.isfinite(rows[-1]["mean"]):
        broken = [name(row) for row in rows if not np.isfinite(row["mean"])]
        rows = [row for row in rows if np.isfinite(row["mean"])]
        return f"{'; '.join(broken)} came to nothing (its score is no number)" + (
            f"; {_verdict(rows, match)}" if rows else ""
        )
    if len(rows) == 1:
        return f"there is one valid combination only, {name(rows[0])}"
    best, second = rows[:2]
    if best["std"] is None or second["std"] is None:
        verdict = f"{name(best)} is the lowest, with one seed, which says nothing of how sure that is"
    else:
        chance = float(stats.ttest_ind(best["scores"], second["scores"], equal_var=False).pvalue)
        pairs = len(rows) - 1  # the best was chosen among so many
        gap, told = second["mean"] - best["mean"], "seeds do not explain" if chance * pairs < 0.05 else "may be chance"
        verdict = (
            f"{name(best)} is the lowest; {name(second)} comes next, {gap:.3g} above, which {told} "
            f"(Welch's t: p = {chance:.2g}, to be read against .05 / {pairs})"
        )
    size = "flop" if match == "compute" else "parameters"
    sizes = [row[size] for row in rows]
    if match != "none" and max(sizes) > (1 + FAR) * min(sizes):
        verdict += f"; sizes could not be matched to {FAR:.0%}: from {min(sizes):,} to {max(sizes):,} {size}"
    return verdict


def table(result: Mapping[str, Any]) -> str:
    """A comparison as text."""
    keys = list(result["rows"][0]["choice"])
    floor = ["floor"] if _floors(result) else []
    lines = [[*keys, "width", "parameters", "MFLOP a pass", "score", "±", *floor]]
    for row in result["rows"]:
        std = "-" if row["std"] is None else f"{row['std']:.2g}"
        lines.append([*(str(row["choice"][k]) for k in keys), str(row["width"]), f"{row['parameters']:,}",
                      f"{row['flop'] / 1e6:.3g}", f"{row['mean']:.4g}", std,
                      *(f"{row['beside'][name]:.4g}" for name in floor)])  # fmt: skip
    shown = aligned(lines, left=len(keys))
    if result["beside"]:
        others = sorted(result["beside"].items(), key=lambda pair: pair[1])
        shown.append(f"beside: {', '.join(f'{name} {value:.4g}' for name, value in others)}")
    shown += [f"left out: {case['choice']}: {case['why']}" for case in result["left_out"]]
    return "\n".join([f"{result['measure']} (lower is better), {result['seeds']} seeds", "", *shown, "", result["verdict"]])


def _floors(result: Mapping[str, Any]) -> bool:
    """Whether each row has a floor of its own: where maps differ, so do the data."""
    return not result["beside"] and all("floor" in row["beside"] for row in result["rows"])
