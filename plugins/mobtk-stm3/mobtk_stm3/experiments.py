"""The claims of STM3 as questions: ``mobtk experiment run stm3/NAME``."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, silhouette_score

from mobtk.data.field import Field, FieldInfo, spread
from mobtk.experiments import Experiment, Lab, Outcome
from mobtk.lessons import Windows
from mobtk.models.moe import MixtureOfExperts
from mobtk.recipe import Recipe
from mobtk.runs import Run
from mobtk.storage import new_file
from mobtk_stm3.recipes import PUBLISHED, STM2, STM3

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"weeks": 40, "nodes": 6, "history": 24, "horizon": 6, "epochs": 2, "days": 8},
    "cpu": {"weeks": 2000, "nodes": 50, "history": 48, "horizon": 12, "epochs": 10, "days": 60},
    "full": {"weeks": 100_000, "nodes": 500, "history": 96, "horizon": 96, "epochs": 50, "days": 365},
}
"""Size of the city and cells of its field; what forecasters read, how far they look ahead and how long they learn; days of
the planted field.
"""


def sized(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe at the size of an experiment."""
    for key in ("history", "horizon"):
        recipe = recipe.change(f"forecast.{key}", settings[key])
    for key, value in (("epochs", settings["epochs"]), ("batch", 32), ("patience", 5)):
        recipe = recipe.change(f"training.forecaster.{key}", value)
    return recipe


def _compare(
    lab: Lab, cases: Mapping[str, Recipe], more: Callable[[Run], dict[str, float]] | None = None
) -> list[dict[str, Any]]:
    """A row a case: errors on the test split, mean and spread over seeds; then those of the baselines."""
    rows: list[dict[str, Any]] = []
    others: dict[str, dict[str, float]] = {}
    for name, recipe in cases.items():
        found: list[dict[str, float]] = []
        for seed in range(lab.seeds):
            run = lab.run(name, recipe, seed)
            scores = lab.errors(run, baselines=not others)
            others |= {k: v for k, v in scores.items() if k != "model"}
            found.append({**scores["model"], **(more(run) if more else {})})
        rows.append({"case": name, **_summary(found)})
    return rows + [{"case": name, **_summary([scores])} for name, scores in others.items()]


def _summary(found: list[dict[str, float]]) -> dict[str, float]:
    shown = {key: float(np.mean([f[key] for f in found])) for key in found[0] if key not in ("mape", "scaled_mse")}
    return {**shown, "spread of mae": float(np.std([f["mae"] for f in found])), "seeds": len(found)}


def _verdict(rows: list[dict[str, Any]], a: str, b: str, claim: str) -> Outcome:
    """Whether case ``a`` has the smaller MAE than ``b``, by more than the spreads of both; one seed cannot tell."""
    first, second = (next(row for row in rows if row["case"] == name) for name in (a, b))
    apart = second["mae"] - first["mae"]
    sure = first["seeds"] > 1 and abs(apart) > first["spread of mae"] + second["spread of mae"]
    return Outcome(
        f"{claim}: MAE {first['mae']:.4g} ({a}) against {second['mae']:.4g} ({b})", apart > 0 if sure else None, rows
    )


def causal_mask(lab: Lab) -> Outcome:
    """The mask of the mixer on and off."""
    base = sized(STM3, lab.settings)
    rows = _compare(lab, {"stm3": base, "all-scales": base.change("mixer.causal", False)})
    return _verdict(rows, "stm3", "all-scales", "a scale that reads coarser ones only is nearer")


def routing(lab: Lab) -> Outcome:
    """By node, by window, and by node without a gradient as published."""
    base = sized(STM3, lab.settings)
    cases = {
        "stm3": base,
        "input-router": base.change("router", "mobtk.input"),
        "published-router": base.change("router", "stm3.published-gate"),
    }

    def changes(run: Run) -> dict[str, float]:
        """The mean over epochs of the share of (window, node) pairs that are with another expert than an epoch before."""
        return {
            "changes an epoch": float(
                np.mean([e["expert_changes"] for e in run.history() if "expert_changes" in e] or [0.0])
            )
        }

    rows = _compare(lab, cases, changes)
    outcome = _verdict(rows, "stm3", "input-router", "experts by node forecast better than by window")
    moved = {row["case"]: row["changes an epoch"] for row in rows if row["case"] in cases}
    outcome.verdict += f"; {moved['stm3']:.1%} of them change expert in an epoch, by window {moved['input-router']:.1%}"
    return outcome


def specialisation(lab: Lab) -> Outcome:
    """What experts say with and without the contrastive loss, on windows of the test split."""
    base = sized(STM3, lab.settings)
    pictures: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}

    def silhouette(name: str, recipe: Recipe) -> float:
        features, experts = expert_outputs(lab.run(name, recipe), lab.field())
        pictures[name] = features, experts
        return float(silhouette_score(features, experts)) if 1 < len(set(experts)) < len(experts) else float("nan")

    rows: list[dict[str, Any]] = []
    for name, recipe in {"stm3": base, "no-contrast": base.change("backbone.contrast", 0.0)}.items():
        rows.append(
            {"case": name, "silhouette": silhouette(name, recipe), "experts used": len(set(pictures[name][1].tolist()))}
        )
    file = lab.folder / "specialisation.png"
    _draw(pictures, file)
    a, b = (float(row["silhouette"]) for row in rows)
    holds = None if np.isnan(a) or np.isnan(b) else bool(a > b)
    said = f"outputs of different experts are further apart with it: silhouette {a:.2f} against {b:.2f}; {file.name}"
    return Outcome(said, holds, rows)


def expert_outputs(run: Run, field: Field) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``(M, D)`` what the experts of the last layer say of some windows and nodes, a mean over steps; and which said it."""
    settings, model = run.recipe.forecast, run.forecaster()
    windows = Windows(field, settings.history, settings.horizon, settings.season)
    values, at = windows[spread(field.windows("test", settings.history, settings.horizon), 16)]
    mixture = model.backbones[-1]
    assert isinstance(mixture, MixtureOfExperts)
    said: dict[int, torch.Tensor] = {}
    hooks = [
        expert.register_forward_hook(lambda module, given, out, e=e: said.__setitem__(e, out.mean(1)))
        for e, expert in enumerate(mixture.experts)
    ]
    with torch.inference_mode():
        model(values[:, : settings.history], at)
    for hook in hooks:
        hook.remove()
    features = torch.cat([said[e] for e in sorted(said)]).numpy()
    return features, np.repeat(sorted(said), [len(said[e]) for e in sorted(said)])


def _draw(pictures: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], file: Any) -> None:
    """The two first principal components of each case, a colour an expert."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    figure = Figure(figsize=(4.5 * len(pictures), 4))
    for ax, (name, (features, experts)) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        flat = PCA(2).fit_transform(features)
        ax.scatter(*flat.T, c=experts, s=6, cmap="tab10")
        ax.set_title(name, fontsize=10)
    with new_file(file) as draft:
        figure.savefig(draft, format="png", dpi=120, bbox_inches="tight")


def scales(lab: Lab) -> Outcome:
    """One to five scales that share about the same width."""
    base = sized(STM3, lab.settings)
    cases = {}
    for n in (1, 2, 3, 4, 5):
        kernels = [1, 3, 5, 7, 9][:n]
        other = base.change("tokenizer.kernels", kernels).change("backbone.kernels", kernels)
        cases["stm3" if n == 4 else f"{n}-scales"] = base if n == 4 else other.change("width", 16 // n * n)
    rows = _compare(lab, cases)
    best, second = sorted((row for row in rows if row["case"] in cases), key=lambda row: row["mae"])[:2]
    outcome = _verdict(rows, best["case"], second["case"], f"at about one width {best['case']} is the nearest (stm3 has 4)")
    outcome.holds = outcome.holds and best["case"] == "stm3"
    return outcome


def experts(lab: Lab) -> Outcome:
    """From a single backbone (STM2) to eight experts and a shared one."""
    base = sized(STM3, lab.settings)
    cases = {
        "stm2": sized(STM2, lab.settings),
        "2-experts": base.change("experts", 2),
        "stm3": base,
        "8-experts": base.change("experts", 8),
    }
    return _verdict(_compare(lab, cases), "stm3", "stm2", "four experts and a shared one are nearer than a single one")


def planted(lab: Lab) -> Outcome:
    """Nodes of three kinds in one field: do nodes of a kind come to one expert?"""
    kinds, field = planted_field(lab)
    recipe = sized(STM3, lab.settings).change("experts", 3).change("forecast.layers", 1)
    rows = []
    for seed in range(lab.seeds):
        run = lab.run("planted", recipe, seed, data=field)
        model = run.forecaster()
        settings = run.recipe.forecast
        windows = Windows(field, settings.history, settings.horizon, settings.season)
        values, at = windows[field.windows("test", settings.history, settings.horizon)[:1]]
        with torch.inference_mode():
            model(values[:, : settings.history], at)
        found = model.served()[0].numpy()
        index = float(adjusted_rand_score(kinds, found))
        rows.append({"seed": seed, "adjusted Rand index": index, "experts used": len(set(found.tolist())),
                     "mae": lab.errors(run)["model"]["mae"]})  # fmt: skip
    mean = float(np.mean([row["adjusted Rand index"] for row in rows]))
    return Outcome(
        f"routing by node finds the planted kinds with an adjusted Rand index of {mean:.2f} (chance is 0)", mean > 0.5, rows
    )


def planted_field(lab: Lab) -> tuple[NDArray[np.int64], Field]:
    """A field of hours whose nodes are a daily wave, a weekly one, or a random walk that returns; and which is which."""
    nodes, hours = 24, 24 * lab.settings["days"]
    rng = np.random.default_rng(0)
    kinds = np.arange(nodes) % 3
    t = np.arange(hours)
    phase = rng.uniform(0, 2 * np.pi, nodes)
    values = np.empty((hours, nodes, 1), np.float32)
    for i, kind in enumerate(kinds):
        if kind < 2:
            values[:, i, 0] = np.sin(2 * np.pi * t / (24, 168)[kind] + phase[i]) + 0.2 * rng.normal(size=hours)
        else:
            walk = np.zeros(hours)
            for k in range(1, hours):
                walk[k] = 0.9 * walk[k - 1] + 0.4 * rng.normal()
            values[:, i, 0] = walk
    path = lab.folder / f"planted-{lab.settings['days']}"
    if path.exists():
        return kinds, Field(path)
    cuts = (hours * 6 // 10, hours * 8 // 10, hours)
    info = FieldInfo(
        "planted kinds", "1h", "2024-01-01T00:00:00", values.shape, ("value",), cuts, sources=["made by mobtk_stm3"]
    )
    return kinds, Field.write(path, info, values, pd.DataFrame({"name": [f"{k}-{i}" for i, k in enumerate(kinds)]}))


def published_vs_corrected(lab: Lab) -> Outcome:
    """The three recipes, other backbones in the corrected one, and the baselines."""
    base = sized(STM3, lab.settings)
    cases = {
        "stm3": base,
        "stm3-published": sized(PUBLISHED, lab.settings),
        "stm2": sized(STM2, lab.settings),
        "gpt2": base.change("backbone", {"name": "mobtk.gpt2", "options": {"depth": 1}}),
        "transformer": base.change("backbone", {"name": "mobtk.transformer", "options": {"depth": 1}}),
    }
    rows = _compare(lab, cases)
    outcome = _verdict(rows, "stm3", "stm3-published", "without its faults STM3 is nearer")
    best = min(rows, key=lambda row: row["mae"])
    outcome.verdict += f"; the smallest of all has {best['case']}, {best['mae']:.4g}"
    return outcome


CAUSAL_MASK = Experiment(
    "Do scales that read coarser ones only forecast better than scales that read all?", causal_mask, SIZES, seeded=True
)
ROUTING = Experiment(
    "Do experts by node forecast better, and more steadily, than experts by window?", routing, SIZES, seeded=True
)
SPECIALISATION = Experiment("Does the contrastive loss make experts say different things?", specialisation, SIZES)
SCALES = Experiment("Are four scales the best, as the paper has them?", scales, SIZES, seeded=True)
EXPERTS = Experiment("Do experts pay?", experts, SIZES, seeded=True)
PLANTED = Experiment("Does routing by node find kinds of nodes that were planted?", planted, SIZES, seeded=True)
PUBLISHED_VS_CORRECTED = Experiment(
    "Is STM3 nearer without the faults of the published code?", published_vs_corrected, SIZES, seeded=True
)
