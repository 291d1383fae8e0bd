"""The page of a run: what it generates or foretells beside what is real, and how good that is."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mobtk.baselines import fit_baselines
from mobtk.contracts import Cells
from mobtk.data.dataset import Dataset
from mobtk.errors import BadInput
from mobtk.forecasting import forecast
from mobtk.generation import read_generated
from mobtk.lessons import Windows
from mobtk.metrics import individual
from mobtk.models.moe import MixtureOfExperts
from mobtk.report import figures
from mobtk.report.page import Section, write_page
from mobtk.runs import Run
from mobtk.storage import PathLike

MOST = 10_000
"""Sequences of either side that are drawn."""
FLOWS = 3_000
"""Pairs of cells that are drawn, the busiest ones."""


def run_page(run: Run | PathLike, out: PathLike) -> None:
    """The page of a run, from what it generated or foretold and how that was scored.

    Args:
        run: of any task, evaluated before; that of a generator has generated, too.
        out: HTML file.

    Raises:
        BadInput: it has generated nothing, or was not evaluated.
    """
    run = run if isinstance(run, Run) else Run(run)
    if run.recipe.task == "forecast":
        write_page(out, f"{run.path.name}: forecasts of {run.data['name']}", _forecasts(run))
        return
    if run.recipe.task == "complete":
        write_page(out, f"{run.path.name}: points of {run.data['name']}", _completions(run))
        return
    file = run.path / "generated.parquet"
    if not file.is_file():
        raise BadInput(f"{run.path} has generated nothing to report on; mobtk generate {run.path} -n 2000")
    dataset, result = run.dataset(), _result(run, "fidelity")
    generated, held_out = read_generated(file, dataset), dataset.cells[dataset.rows("test")]
    n = min(len(generated), len(held_out), MOST)
    pick = np.random.default_rng(0)
    real, fake = _some(held_out, n, pick), _some(generated, n, pick)
    sections = [
        Section("In short", _short(result, n)),
        _scores(result),
        _where(dataset, real, fake),
        _flows(dataset, real, fake),
        *([] if dataset.info.step == "event" else [_hours(dataset, real, fake)]),
        _distributions(dataset, real, {"generated": fake, **_beside(dataset, result, n)}),
        _learning(run),
        _audit(run),
        _cards(result),
        _made(run, result),
    ]
    write_page(out, f"{run.path.name}: generated for {run.data['name']}", sections)


def _result(run: Run, name: str) -> dict[str, Any]:
    file = run.path / "results" / f"{name}.json"
    if not file.is_file():
        raise BadInput(f"{run.path} was not evaluated; mobtk evaluate {run.path}")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _forecasts(run: Run) -> list[Section]:
    """The sections of a forecaster's page."""
    result, field = _result(run, "forecast"), run.field()
    if "by_node" not in result:
        raise BadInput(
            f"{run.path} was evaluated by an older mobtk, which kept no errors of nodes; mobtk evaluate {run.path}"
        )
    scores, names = result["scores"], field.nodes["name"].astype(str).tolist()
    metrics = list(scores["model"])
    rows: list[tuple[Any, ...]] = [("forecast by", *metrics)]
    rows += [(name, *(f"{values[m]:.4g}" for m in metrics)) for name, values in scores.items()]
    others = sorted((n for n in scores if n != "model"), key=lambda n: scores[n]["mae"])
    best = others[0] if others else None
    text = f"{result['n']:,} windows of the {result['split']} split, {result['horizon']} steps of {result['step']} ahead."
    if best is not None:
        gain = 1 - scores["model"]["mae"] / scores[best]["mae"]
        how = f"{gain:.1%} below" if gain >= 0 else f"{-gain:.1%} above"
        text += f"\nMean absolute error {how} that of the best baseline ({best})."
    ahead = np.arange(1, result["horizon"] + 1)
    lines = [(name, np.array(result["by_step"][name]["mae"])) for name in ("model", *others[:2])]
    by_step = figures.curves(ahead, lines, f"steps of {result['step']} ahead", "mean absolute error")
    error = np.array(result["by_node"]["model"], float)
    order = np.argsort(np.where(np.isnan(error), -np.inf, error))[::-1]
    known = [int(i) for i in order if np.isfinite(error[i])]
    table: list[tuple[Any, ...]] = [("node", "MAE", *([f"MAE of {best}"] if best else []))]
    for i in dict.fromkeys([*known[:5], *known[-5:]]):
        more = [f"{result['by_node'][best][i]:.4g}"] if best else []
        table.append((names[i], f"{error[i]:.4g}", *more))
    pictures = []
    if field.nodes.geometry.notna().all() if "geometry" in field.nodes else False:
        pictures.append((figures.nodes(field.nodes, error, "mean absolute error"), "the error at each node, on the map"))
    shown = [names[i] for i in dict.fromkeys((known[0], known[len(known) // 2], known[-1]))]
    told = forecast(run, nodes=shown)
    drawn = figures.picture(figures.forecasts(told[told["channel"] == field.info.channels[0]]))
    says = f"the last forecast of the node with the largest error, a middling one and the smallest: {', '.join(shown)}"
    return [
        Section("In short", text),
        Section("Errors, beside baselines", rows=rows),
        Section("How far ahead", pictures=[(by_step, "the error at each step ahead, beside the two best baselines")]),
        Section("Where", "The five worst nodes and the five best.", rows=table, pictures=pictures),
        Section("History and forecast", pictures=[(drawn, says)]),
        _learning(run),
        _cards(result),
        _made(run, result),
    ]


def _completions(run: Run) -> list[Section]:
    """The sections of a completer's page."""
    result = _result(run, "complete")
    sections, told = [], []
    for mask, scores in result["scores"].items():
        metrics = list(next(iter(scores.values())))
        rows: list[tuple[Any, ...]] = [("told by", *metrics)]
        rows += [(source, *(f"{values[m]:.4g}" for m in metrics)) for source, values in scores.items()]
        best = max((gained[metrics[0]] for gained in result["skill"][mask].values()), default=None)
        if best is not None:
            side = "nearer" if best >= 0 else "farther off"
            told.append(
                f"{mask}: {abs(best):.1%} {side} than the best baseline ({metrics[0]}, {result['n'][mask]:,} pieces)"
            )
        pictures = []
        ahead = result["by_step"][mask]
        if mask.rpartition(".")[2] == "last":
            others = sorted((s for s in ahead if not s.startswith("model")), key=lambda s: scores[s]["ade"])[:1]
            ways = [s for s in ahead if s.startswith("model")]
            lines = [(source, np.array(ahead[source])) for source in (*others, *ways)]
            picture = figures.curves(np.arange(1, len(lines[0][1]) + 1), lines, "points ahead", "metres off, mean")
            pictures.append((picture, "how far off each next point is told, beside the best baseline"))
        sections.append(Section(f"What {mask} hides", rows=rows, pictures=pictures))
    return [
        Section("In short", "\n".join(told) or "No baseline was scored."),
        *sections, _learning(run), _cards(result), _made(run, result),
    ]  # fmt: skip


def _some(cells: NDArray[Any], n: int, rng: np.random.Generator) -> Cells:
    """So many sequences, in order."""
    some: Cells = cells[np.sort(rng.permutation(len(cells))[:n])].astype(np.int64)
    return some


VACUOUS = 0.5
"""A floor from which on twice the floor says nothing: a share of errors is 1 for who generates nobody."""
LOWER = ("distance", "radius", "duration", "dailyloc", "rank", "density", "flow")


def _short(result: Mapping[str, Any], n: int) -> str:
    scores = result["scores"]
    model, floor = scores["model"], scores["floor"]
    near = [k for k in LOWER if k in model and model[k]["mean"] <= 2 * floor[k]["mean"] and floor[k]["mean"] < VACUOUS]
    others = {k: v for k, v in scores.items() if k not in ("model", "floor")}
    best: dict[str, tuple[float, str]] = {}
    for key in model:
        sign = 1 if key in LOWER else -1
        if others and all(key in o for o in others.values()):
            best[key] = min((sign * o[key]["mean"] - sign * model[key]["mean"], s) for s, o in others.items())
    ahead = [k for k, (gap, _) in best.items() if gap > 0]
    behind = [f"{k} ({source})" for k, (gap, source) in best.items() if gap < 0]
    lines = [
        f"{n:,} generated sequences beside {n:,} real ones of the test split, whom the model did not learn from.",
        "The floor is the score of real people against other real people: what a perfect generator has on average.",
        f"Within twice the floor: {', '.join(near) or 'none of the scores'}.",
    ]
    if result["n"] < 100:
        lines.append(f"Scores are of {result['n']} sequences a side, which are few: differences are mostly chance.")
    if others:
        lines.append(f"Better than every baseline: {', '.join(ahead) or 'in none of the scores'}.")
        lines.append(f"A baseline is better: {', '.join(behind) or 'in none of the scores'}.")
    return "\n".join(lines)


def _scores(result: Mapping[str, Any]) -> Section:
    scores = result["scores"]
    sources = ["model", "floor", *(s for s in scores if s not in ("model", "floor"))]
    rows: list[tuple[Any, ...]] = [("score", "better", *sources)]
    for key in scores["floor"]:
        rows.append((
            key, "lower" if key in LOWER else "higher",
            *(f"{scores[s][key]['mean']:.3g} ± {scores[s][key]['std']:.2g}" if key in scores[s] else "-" for s in sources),
        ))  # fmt: skip
    text = (
        f"{result['n']:,} sequences a side, {result['repeats']} repeats; ± is the spread over them. What each score is "
        "stands below; the first five are divergences in nats: 0 where distributions are alike, .69 where they share "
        "nothing. Markov, time of day and EPR are simple generators that know the same people."
    )
    return Section("Scores, with their floor and baselines", text, rows=rows)


def _where(dataset: Dataset, real: Cells, generated: Cells) -> Section:
    frame, n = dataset.mapper().geometry(), dataset.mapper().n_cells[0]
    night = np.arange(real.shape[1]) * 24 // dataset.info.steps_per_day % 24 < 6
    if dataset.info.step == "event":  # no step has an hour
        night[:] = False

    def share(cells: Cells) -> NDArray[np.float64]:
        return np.bincount(cells.ravel(), minlength=n) / cells.size

    pictures = [(figures.cells(frame, share(real), share(generated), "all steps"), "where people are, at all steps")]
    if night.any():
        nights = figures.cells(frame, share(real[:, night]), share(generated[:, night]), "steps from 0 to 6 o'clock")
        pictures.append((nights, "where people are from 0 to 6 o'clock, which is mostly at home"))
    return Section("Where people live and go", pictures=pictures)


def _flows(dataset: Dataset, real: Cells, generated: Cells) -> Section:
    n = dataset.mapper().n_cells[0]

    def moves(cells: Cells) -> tuple[Cells, Cells]:
        a, b = cells[:, :-1].ravel(), cells[:, 1:].ravel()
        return np.unique((a * n + b)[a != b], return_counts=True)

    (ours, our_n), (theirs, their_n) = moves(real), moves(generated)
    pairs = np.union1d(ours, theirs)
    counts = np.zeros((2, len(pairs)))
    counts[0, np.searchsorted(pairs, ours)] = our_n
    counts[1, np.searchsorted(pairs, theirs)] = their_n
    busy = np.argsort(-counts.sum(0))[:FLOWS]
    if not len(busy):
        return Section("Flows", "Nobody moves, on either side.")
    says = (
        f"moves between the {len(busy):,} busiest pairs of cells; on the line, real and generated agree; pairs that one "
        "side lacks stand at .5"
    )
    return Section("Flows", pictures=[(figures.agreement(counts[0, busy], counts[1, busy], "moves"), says)])


def _hours(dataset: Dataset, real: Cells, generated: Cells) -> Section:
    day = dataset.info.steps_per_day
    hours = np.arange(1, real.shape[1]) % day

    def moving(cells: Cells) -> NDArray[np.float64]:
        moved = (cells[:, 1:] != cells[:, :-1]).mean(0)
        return 100 * np.bincount(hours, moved, minlength=day) / np.maximum(np.bincount(hours, minlength=day), 1)

    x = np.arange(day) * 24 / day
    ticks = [(float(h), f"{h}:00") for h in range(0, 24, 6)]
    a, b = moving(real), moving(generated)
    worst = int(np.abs(a - b).argmax())
    when = f"{int(x[worst])}:{60 * (x[worst] % 1):02.0f}"
    text = f"Farthest apart at {when}: {b[worst]:.1f} % of generated people move, and {a[worst]:.1f} % of real ones."
    lines = [("real", a), ("generated", b)]
    picture = figures.curves(x, lines, "hour of the day", "% who move in this step", ticks=ticks)
    return Section("Times of the day", text, pictures=[(picture, "when people go from one cell to another")])


def _beside(dataset: Dataset, result: Mapping[str, Any], n: int) -> dict[str, Cells]:
    """As many people of the best baseline (in the mean of what is drawn), and half of the real ones: the floor."""
    scores, rng = result["scores"], np.random.default_rng(result["seed"])
    drawn: dict[str, Cells] = {}
    if len(scores) > 2:
        fitted = fit_baselines(dataset)
        of = {s: sum(scores[s][k]["mean"] for k in LOWER[:4]) for s in scores if s in fitted}
        best = min(of, key=lambda s: of[s])
        drawn[best] = fitted[best].sample(n, rng).astype(np.int64)
    held_out = dataset.cells[dataset.rows(result["split"])]
    return drawn | {"other real people": _some(held_out, max(2, len(held_out) // 2), rng)}


def _distributions(dataset: Dataset, real: Cells, others: Mapping[str, Cells]) -> Section:
    mapper = dataset.mapper()
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    day = dataset.info.steps_per_day
    profiles = {name: individual.profile(cells, lat, lon, day) for name, cells in {"real": real, **others}.items()}
    hours, of_stay = (1.0, "visits") if dataset.info.step == "event" else (24 / day, "hours")

    def hist(get: Any, edges: NDArray[np.float64]) -> list[tuple[str, NDArray[np.float64]]]:
        found = []
        for name, profile in profiles.items():
            values = get(profile)
            found.append((name, 100 * np.histogram(values, edges)[0] / max(len(values), 1)))
        return found

    def counts(get: Any, most: int) -> list[tuple[str, NDArray[np.float64]]]:
        return [(name, 100 * get(p)[:most] / max(get(p).sum(), 1)) for name, p in profiles.items()]

    def edges(get: Any) -> NDArray[np.float64]:
        values = get(profiles["real"])
        return np.linspace(0, max(float(np.quantile(values, 0.995)) if len(values) else 1.0, 0.1), 21)

    pictures = []
    how_far = ("km of a move", "how far people go at once", "% of moves", lambda p: p.moves)
    how_wide = (
        "radius of gyration, km",
        "how far from their middle people are, in the mean",
        "% of people",
        lambda p: p.radius,
    )
    for label, says, unit, get in (how_far, how_wide):
        bins = edges(get)
        picture = figures.curves((bins[1:] + bins[:-1]) / 2, hist(get, bins), label, unit, logarithmic=True)
        pictures.append((picture, says))
    longest = min(day * 2, real.shape[1])
    stays = counts(lambda p: p.durations, longest + 1)
    x = np.arange(longest + 1) * hours
    stays = [(k, v[1:]) for k, v in stays]
    pictures.append((figures.curves(x[1:], stays, f"{of_stay} of a stay", "% of stays", logarithmic=True),
                     f"how long people stay in a cell, up to {longest * hours:g} {of_stay}"))  # fmt: skip
    ranks = np.arange(1, min(100, len(lat)) + 1)
    of_rank = [(name, 100 * np.sort(p.visits)[::-1][: len(ranks)] / max(p.visits.sum(), 1)) for name, p in profiles.items()]
    pictures.append((figures.curves(ranks, of_rank, "rank of a cell", "% of stays", logarithmic=True),
                     "how stays are spread over the busiest cells"))  # fmt: skip
    places = counts(lambda p: p.daily, 12)
    most = min(len(v) for _, v in places)
    pictures.append((figures.curves(np.arange(most), [(k, v[:most]) for k, v in places], "cells of a day", "% of days"),
                     "to how many cells people go in a day"))  # fmt: skip
    return Section("The distributions behind the scores", pictures=pictures)


def _learning(run: Run) -> Section:
    history = run.history()
    rows: list[tuple[Any, ...]] = [("stage", "epochs", "best on validation", "last")]
    pictures = []
    for stage in dict.fromkeys(line["stage"] for line in history):
        own = [line for line in history if line["stage"] == stage]
        figure = [line.get("valid_loss", 1 - line.get("valid_accuracy", 0)) for line in own]
        rows.append((stage, len(own), f"{min(figure):.4g}", f"{figure[-1]:.4g}"))
        if len(own) > 1:
            says = f"{stage}: {'nats a token' if 'valid_loss' in own[0] else 'share of steps decoded wrong'} on validation"
            x = [line["epoch"] for line in own]
            pictures.append((figures.curves(x, [("validation", np.array(figure))], "epoch", "loss"), says))
    codec = [line for line in history if "valid_codes_used" in line]
    text = ""
    if codec:
        best = max(codec, key=lambda line: line.get("valid_accuracy", 0))
        text = (
            f"The codec decodes {best['valid_accuracy']:.1%} of the steps right; {best['valid_codes_used']:.0f} codes are "
            f"in use (as many as {best['valid_codes_perplexity']:.0f} used alike)."
        )
    text += _experts(run)
    return Section("How it learned", text, rows=rows, pictures=pictures)


@torch.inference_mode()
def _experts(run: Run) -> str:
    """How evenly experts serve people of the test split, or the nodes at the last moment; nothing where there are none."""
    if run.recipe.experts < 2 or run.recipe.task == "complete":
        return ""
    if run.recipe.task == "generate":
        model, dataset = run.model(), run.dataset()
        chosen, who = [], "people"
        some = dataset.rows("test")[:512]
        for rows in np.array_split(some, -(-len(some) // 32)):
            tokens = model.tokenizer.encode(torch.from_numpy(dataset.cells[rows].astype(np.int64)))
            traits = torch.from_numpy(dataset.traits(run.recipe.traits)[rows]) if run.recipe.traits else None
            x, cond = model.inputs(tokens, traits)
            model.backbone(x, model.tokenizer.schedule, cond)
            chosen.append([m.served for m in model.modules() if isinstance(m, MixtureOfExperts) and m.served is not None])
        served = [torch.cat(layer) for layer in zip(*chosen, strict=True)]
    else:
        forecaster, settings, field = run.forecaster(), run.recipe.forecast, run.field()
        windows = Windows(field, settings.history, settings.horizon, settings.season)
        values, of_day = windows[np.array([len(field) - settings.history - settings.horizon])]
        forecaster(values[:, : settings.history], of_day)
        served, who = forecaster.served(), "nodes"
    told = ""
    for layer, experts in enumerate(served, 1):
        shares = np.bincount(experts.numpy(), minlength=run.recipe.experts) / len(experts)
        told += f"\nLayer {layer}: {(shares > 0).sum()} of {run.recipe.experts} experts serve {who}, "
        told += "in shares of " + ", ".join(f"{share:.0%}" for share in shares) + "."
    return told


def _audit(run: Run) -> Section:
    file = run.path / "results" / "audit.json"
    if not file.is_file():
        return Section("Is it private?", f"It was not audited; before people are handed on: mobtk audit {run.path}")
    audit = json.loads(file.read_text(encoding="utf-8"))
    rows: list[tuple[Any, ...]] = [("figure", "value", "what it is")]
    rows += [(k.replace("_", " "), _plain(v), audit["meaning"][k]) for k, v in audit["figures"].items()]
    for whose, shares in audit["uniqueness"].items():
        says = f"share of {whose} whom {', '.join(shares)} of their points, known to somebody, tell from all others"
        rows.append((f"unique among {whose}", ", ".join(f"{share:.0%}" for share in shares.values()), says))
    text = f"{audit['summary']}\nOf {audit['n']:,} members and as many outsiders; docs/howto/privacy.md says how to read it."
    return Section("Is it private?", text, rows=rows)


def _cards(result: Mapping[str, Any]) -> Section:
    keys = ("formula", "unit", "aggregation", "bins")
    rows: list[tuple[Any, ...]] = [("score", *keys)]
    rows += [(name, *(_plain(card.get(k, "-")) for k in keys)) for name, card in result["cards"].items()]
    return Section("What the scores are", rows=rows)


def _made(run: Run, result: Mapping[str, Any]) -> Section:
    made = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    generated = [f"mobtk generate {run.path} -n {result['n']}"] if run.recipe.task == "generate" else []
    of_evaluation = f", of the evaluation {result['seed']}" if "seed" in result else ""
    data = os.path.normpath(run.path / run.data["dataset"])
    lines = [
        f"mobtk build {run.path}/recipe.toml --data {data} -o again   # the recipe below; then as here:",
        f"mobtk train {run.path}",
        *generated,
        f"mobtk evaluate {run.path}",
        "",
        f"seed of the training {run.recipe.training.seed}{of_evaluation}; mobtk {made['mobtk']}, "
        + ", ".join(f"{k} {v}" for k, v in made["packages"].items()),
        f"plugins: {', '.join(made['plugins'].values())}",
        "",
        run.recipe.dumps(),
    ]
    return Section("How it was made", code="\n".join(lines))


def _plain(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
