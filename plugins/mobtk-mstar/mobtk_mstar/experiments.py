"""The claims of M-STAR as questions: ``mobtk experiment run mstar/NAME``."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mobtk import benchmarks
from mobtk.baselines.diffusion import fit_diffusion
from mobtk.data.traits import home_and_work
from mobtk.evaluation import compare
from mobtk.experiments import Experiment, Lab, Outcome
from mobtk.generation import generate, read_generated
from mobtk.models.generator import Generator
from mobtk.recipe import AUTOREGRESSIVE, Part, Recipe
from mobtk.runs import Run, find_device
from mobtk.storage import new_file
from mobtk_mstar.diary import dividing_lengths
from mobtk_mstar.recipes import CORRECTED, DIARY, LARGE_DIARY, MSTAR, PUBLISHED, SMALL

INDIVIDUAL = ("distance", "radius", "duration", "dailyloc")
TINY_CHANGES = {
    "width": 16, "tokenizer.codes": 32, "tokenizer.depth": 1, "tokenizer.heads": 2, "backbone.depth": 1, "backbone.heads": 2,
}  # fmt: skip
CPU_CHANGES = {
    "width": 64, "tokenizer.codes": 512, "tokenizer.depth": 1, "tokenizer.heads": 4, "backbone.depth": 2,
    "backbone.heads": 4,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        "weeks": 200, "changes": TINY_CHANGES, "small": {"width": 16, "backbone.depth": 1, "backbone.heads": 2},
        "tokenizer": (1, 32, 1e-3), "generator": (1, 32, 1e-3),
    },
    "cpu": {
        "weeks": 2000, "changes": CPU_CHANGES, "small": {},
        "tokenizer": (10, 32, 1e-3), "generator": (5, 32, 1e-3),
    },
    "full": {"weeks": 100_000, "changes": {}, "tokenizer": (10, 128, 1e-4), "generator": (20, 128, 1e-3)},
}  # fmt: skip
"""Size of the city; what changes in a recipe of the paper's sizes, and in ``mstar-small`` and ``mstar-diary``; epochs, batch
and learning rate of each stage.

mobtk's parts train their tokenizer as their own recipe says, the generator as long as the others (a diary three times as
many epochs); all of it as their recipe says at full size.
"""


def sized(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe of the paper's sizes at the size of an experiment."""
    for key, value in settings["changes"].items():
        recipe = recipe.change(key, value)
    for stage in ("tokenizer", "generator"):
        for name, value in zip(("epochs", "batch", "lr"), settings[stage], strict=True):
            recipe = recipe.change(f"training.{stage}.{name}", value)
    return recipe.change("training.precision", "auto" if not settings["changes"] else "float32")


def small(lab: Lab) -> Recipe:
    """M-STAR with mobtk's ``rvq`` at the size of the lab."""
    return _small(SMALL, lab.settings) if lab.settings["changes"] else MSTAR


def diary(lab: Lab) -> Recipe:
    """M-STAR's scales over a diary at the size of the lab: longer, for it has half of the tokens and finds homes slowly."""
    return _small(DIARY, lab.settings, 3) if lab.settings["changes"] else LARGE_DIARY


def _small(recipe: Recipe, settings: Mapping[str, Any], longer: int = 1) -> Recipe:
    for key, value in settings["small"].items():
        recipe = recipe.change(key, value)
    epochs, batch, _ = settings["generator"]
    epochs *= longer
    return recipe.change("training.generator.epochs", epochs).change("training.generator.batch", batch)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _health(lab: Lab, run: Run) -> dict[str, float]:
    dataset = lab.dataset()
    cells = torch.from_numpy(dataset.cells[dataset.rows("test")][:2000].astype(np.int64))
    return run.model().tokenizer.health(cells)


# ---------------------------------------------------------------------------------------------------- the tokenizer


def reconstruction(lab: Lab) -> Outcome:
    """Each fault of the published tokenizer mended by itself, all of them, and mobtk's own."""
    published = sized(PUBLISHED, lab.settings)
    cases = {
        "published": published,
        "published+pairing": published.change("tokenizer.pairing", "intended"),
        "published+feedback": published.change("tokenizer.feedback", True),
        "published+living-codes": published.change("tokenizer.codebook", "average"),
        "corrected": sized(CORRECTED, lab.settings),
        "rvq": small(lab),
        "diary": diary(lab),
    }
    rows: list[dict[str, Any]] = []
    accuracy: dict[str, list[float]] = {}
    for name, recipe in cases.items():
        found = [_health(lab, lab.run(name, recipe, seed, until="tokenizer")) for seed in range(lab.seeds)]
        accuracy[name] = [f["accuracy"] for f in found]
        rows.append({
            "tokenizer": name,
            "hours decoded right": _mean(accuracy[name]),
            "spread": float(np.std(accuracy[name])),
            "codes used": _mean([f["codes_used"] for f in found]),
            "perplexity": _mean([f["codes_perplexity"] for f in found]),
        })  # fmt: skip
    better = min(accuracy["corrected"]) > max(accuracy["published"])
    return Outcome(
        f"of held-out people's hours the published tokenizer decodes {_mean(accuracy['published']):.1%}, the corrected one "
        f"{_mean(accuracy['corrected']):.1%}, mobtk's rvq {_mean(accuracy['rvq']):.1%}, a diary "
        f"{_mean(accuracy['diary']):.1%}",
        better, rows,
    )  # fmt: skip


RECONSTRUCTION = Experiment(
    "Do the corrections let the tokenizer carry the weeks of people it has not seen better than the published rule?",
    reconstruction,
    SIZES,
    seeded=True,
)


def codebook(lab: Lab) -> Outcome:
    """The published rule (learned by gradient, chosen by angle), moving averages without revival, and with it; and a diary,
    whose codes are as many at each scale.
    """
    base = sized(CORRECTED, lab.settings)
    cases = {
        "gradient": base.change("tokenizer.codebook", "gradient").change("tokenizer.feedback", False),
        "averages": base.change("tokenizer.revive", 0.0),
        "corrected": base,
        "diary": diary(lab),
    }
    rows: list[dict[str, Any]] = []
    used: dict[str, float] = {}
    for name, recipe in cases.items():
        health = _health(lab, lab.run(name, recipe, until="tokenizer"))
        used[name] = health["codes_used"] / recipe.tokenizer.options["codes"]
        scales = {f"scale {k[11:]}": v for k, v in health.items() if k.startswith("used_scale_")}
        rows.append({"codebook": name, "used": used[name], "perplexity": health["codes_perplexity"], **scales})
    share = used["corrected"]
    return Outcome(
        f"after training {used['gradient']:.0%} of the codes are in use by the published rule, "
        f"{share:.0%} with moving averages and revival (goal: 95 %)",
        share >= 0.95, rows,
    )  # fmt: skip


CODEBOOK = Experiment("Does the codebook collapse, and does revival keep it alive?", codebook, SIZES)


# -------------------------------------------------------------------------------------------------------- the weeks

LENGTHS: dict[str, list[int]] = {
    "1": [168],
    "2": [7, 168],
    "4": [1, 7, 28, 168],
    "8": [1, 7, 14, 28, 42, 56, 84, 168],
    "12": [1, 2, 4, 7, 14, 21, 24, 28, 42, 56, 84, 168],
}
"""Tokens of each scale, by the number of scales; all divide a week."""


def scales(lab: Lab) -> Outcome:
    """Fidelity and speed by the number of scales of a diary, and of one hour after the other."""
    base = diary(lab)
    steps = lab.dataset().info.steps
    cases = {k: base.change("tokenizer.lengths", list(dividing_lengths(steps, lengths))) for k, lengths in LENGTHS.items()}
    cases["4"] = base
    cases["168, hour by hour"] = base.change("tokenizer", "cells")
    rows: list[dict[str, Any]] = []
    error: dict[str, float] = {}
    for name, recipe in cases.items():
        folder = "diary" if recipe == base else f"scales-{name.split(',')[0]}"
        runs = [lab.run(folder, recipe, seed) for seed in range(lab.seeds)]
        found = [lab.scores(run) for run in runs]
        scores = [f["model"] for f in found]
        error[name] = _mean([s[m] for s in scores for m in INDIVIDUAL])
        model = runs[0].model()
        rows.append({
            "scales": name,
            "passes": model.tokenizer.schedule.n_groups,
            "mean JSD": error[name],
            **{m: _mean([s[m] for s in scores]) for m in INDIVIDUAL},
            "weeks/s, batch 1": weeks_per_second(model, 1),
            "weeks/s, batch 64": weeks_per_second(model, 64),
        })  # fmt: skip
    floor = {m: found[0]["floor"][m] for m in INDIVIDUAL}
    rows.append({"scales": "floor", "mean JSD": _mean([*floor.values()]), **floor})
    best = min(error, key=lambda k: error[k])
    return Outcome(
        f"the smallest mean JSD has K = {best} ({error[best]:.4f}); K = 8 has {error['8']:.4f}", best == "8", rows
    )


SCALES = Experiment("Are eight scales the best, as the paper says, and what do they cost?", scales, SIZES, seeded=True)


def weeks_per_second(model: Generator, batch: int) -> float:
    """Weeks generated per second of processor time, in one thread."""
    traits = None if model.traits is None else torch.zeros(batch, len(model.traits.names), dtype=torch.long)
    return batch / benchmarks.processor_seconds(lambda: model.generate(traits, batch))


def attributes(lab: Lab) -> Outcome:
    """Weeks made for the traits of held-out people, those who work at home and those who go out."""
    run = lab.run("diary", diary(lab))
    dataset = lab.dataset()
    rows_ = dataset.rows("test")
    traits = dataset.traits(run.recipe.traits)[rows_]
    table = pd.DataFrame(traits, columns=list(run.recipe.traits))
    file = run.path / "profiles.parquet"
    if not file.exists():
        table.to_parquet(run.path / "profiles-wanted.parquet")
        generate(run, out=file, traits=run.path / "profiles-wanted.parquet", device=lab.device)
    made = read_generated(file, dataset).astype(np.int64)
    when = dataset.moments()[rows_]  # seconds of local time; 1970 began on a Thursday
    home, work = home_and_work(made, when % 86_400 / 3600, (when // 86_400 + 3) % 7 >= 5)
    at_home = (made == table["home"].to_numpy()[:, None]).mean(1)
    real = (dataset.cells[rows_] == table["home"].to_numpy()[:, None]).mean(1)
    rows: list[dict[str, Any]] = []
    told: list[float] = []
    for name, group in (("home stayers", table["home"] == table["work"]), ("commuters", table["home"] != table["work"])):
        mask = group.to_numpy()
        rows.append({
            "profile": name,
            "weeks": int(mask.sum()),
            "home as asked": float((home == table["home"])[mask].mean()),
            "work as asked": float((work == table["work"])[mask].mean()),
            "time at home, generated": float(at_home[mask].mean()),
            "time at home, real": float(real[mask].mean()),
        })  # fmt: skip
        told.append(rows[-1]["home as asked"])
    return Outcome(
        f"the generated week has the home that was asked for in {told[0]:.0%} of home stayers and {told[1]:.0%} of "
        f"commuters, the work in {rows[0]['work as asked']:.0%} and {rows[1]['work as asked']:.0%} (claim: above 90 %)",
        min(min(told), rows[0]["work as asked"], rows[1]["work as asked"]) > 0.9, rows,
    )  # fmt: skip


ATTRIBUTES = Experiment("Does a generated week match the profile it was made for?", attributes, SIZES)


def entropy(cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(N,)`` bits of the distribution of each sequence over its cells."""
    ordered = np.sort(cells, axis=1)
    found = np.zeros(len(cells))
    for i, row in enumerate(ordered):
        p = np.diff(np.flatnonzero(np.r_[True, row[1:] != row[:-1], True])) / len(row)
        found[i] = -(p * np.log2(p)).sum()
    return found


def irregular(lab: Lab) -> Outcome:
    """Weeks made for the traits of held-out people, in quarters of those people's entropy."""
    attributes(lab)  # makes the weeks, if they are not there
    run, dataset = lab.run("diary", diary(lab)), lab.dataset()
    made = read_generated(run.path / "profiles.parquet", dataset).astype(np.int64)
    real = dataset.cells[dataset.rows("test")].astype(np.int64)
    a, b = entropy(real), entropy(made)
    quarter = np.digitize(a, np.quantile(a, [0.25, 0.5, 0.75]))
    rows: list[dict[str, Any]] = []
    for q in range(4):
        mask = quarter == q
        rows.append({
            "quarter of people": ("lowest", "second", "third", "highest")[q] + " entropy",
            "entropy, real": float(a[mask].mean()),
            "entropy, generated": float(b[mask].mean()),
            "moves a week, real": float((real[mask][:, 1:] != real[mask][:, :-1]).sum(1).mean()),
            "moves a week, generated": float((made[mask][:, 1:] != made[mask][:, :-1]).sum(1).mean()),
        })  # fmt: skip
    lost = 1 - rows[3]["entropy, generated"] / rows[3]["entropy, real"]
    spread = float(np.quantile(b, 0.95) / np.quantile(a, 0.95))
    return Outcome(
        f"the most irregular quarter loses {lost:.0%} of its entropy given its traits only (which do not say that it is "
        f"irregular); over the whole population the 95 % quantile of entropy is {spread:.2f} times the real one",
        spread < 0.9, rows,
    )  # fmt: skip


IRREGULAR = Experiment("Does the hierarchy make irregular people too regular?", irregular, SIZES)


def flips(cells: NDArray[np.int64]) -> float:
    """Hours a week that are spent elsewhere between two hours in one cell."""
    away = (cells[:, 2:] == cells[:, :-2]) & (cells[:, 1:-1] != cells[:, 2:])
    return float(away.sum(1).mean())


def discontinuity(lab: Lab) -> Outcome:
    """Flips of real weeks and of those generated with several ways of drawing; smoothing with the corrected tokenizer."""
    run, mst = lab.run("rvq", small(lab)), lab.run("corrected", sized(CORRECTED, lab.settings))
    dataset = lab.dataset()
    real = flips(dataset.cells[dataset.rows("test")].astype(np.int64))
    ways: dict[str, dict[str, Any]] = {
        "each token on its own": {"coupling": 0},
        "coupled within a day": {},
        "coupled, top-k 10": {"top_k": 10},
        "coupled, temperature 0.8": {"temperature": 0.8},
    }
    rows: list[dict[str, Any]] = [{"weeks": "real", "flips a week": real}]
    for i, (name, sampling) in enumerate(ways.items()):
        rows.append({"weeks": f"mobtk's rvq, {name}", "flips a week": flips(lab.generated(run, name=f"way{i}", **sampling))})
    model = mst.model()
    traits = torch.from_numpy(dataset.traits(mst.recipe.traits)[dataset.rows("train")][:500])
    for smooth in (False, True):
        model.tokenizer.smooth = smooth  # type: ignore[assignment]
        made = model.generate(traits, len(traits), top_k=10, generator=torch.Generator().manual_seed(0)).numpy()
        rows.append({"weeks": f"corrected, top-k 10{', smoothed' if smooth else ''}", "flips a week": flips(made)})
    rows.append({"weeks": "diary", "flips a week": flips(lab.generated(lab.run("diary", diary(lab))))})
    apart, together = rows[1]["flips a week"], rows[2]["flips a week"]
    return Outcome(
        f"real weeks have {real:.2f} flips; drawing each token on its own gives {apart:.2f}, coupling {together:.2f}; "
        f"smoothing takes the corrected tokenizer's from {rows[5]['flips a week']:.2f} to {rows[6]['flips a week']:.2f}; "
        f"a diary has {rows[7]['flips a week']:.2f}",
        apart > 1.5 * real, rows,
    )  # fmt: skip


DISCONTINUITY = Experiment(
    "Do tokens that are drawn at once break stays, and what helps: smoothing, sharper draws, or coupling?",
    discontinuity,
    SIZES,
)


def published_vs_corrected(lab: Lab) -> Outcome:
    """All scores of the three settings, beside the floor and the baselines."""
    cases = {
        "published": sized(PUBLISHED, lab.settings),
        "corrected": sized(CORRECTED, lab.settings),
        "rvq": small(lab),
        "diary": diary(lab),
    }
    found: dict[str, list[dict[str, float]]] = {}
    for name, recipe in cases.items():
        for seed in range(lab.seeds):
            scores = lab.scores(lab.run(name, recipe, seed), baselines=seed == 0)
            found.setdefault(name, []).append(scores.pop("model"))
            for source, values in scores.items():
                found.setdefault(source, [values])
    metrics = list(found["floor"][0])
    rows: list[dict[str, Any]] = [
        {"model": name, **{m: _mean([s[m] for s in some]) for m in metrics}} for name, some in found.items()
    ]
    error = {row["model"]: _mean([row[m] for m in INDIVIDUAL]) for row in rows}
    return Outcome(
        f"mean of the four individual JSD: published {error['published']:.4f}, corrected {error['corrected']:.4f}, mobtk's "
        f"rvq {error['rvq']:.4f}, diary {error['diary']:.4f}, floor {error['floor']:.4f}",
        error["corrected"] < error["published"], rows,
    )  # fmt: skip


PUBLISHED_VS_CORRECTED = Experiment(
    "Are the corrections worth it in the weeks that are generated?", published_vs_corrected, SIZES, seeded=True
)


def _with(recipe: Recipe, backbone: str, *options: str) -> Recipe:
    """The recipe with another backbone, as deep and with as many heads."""
    same = {k: v for k, v in recipe.backbone.options.items() if k in (options or ("depth", "heads"))}
    return msgspec.structs.replace(recipe, backbone=Part(backbone, same))


def swap(lab: Lab) -> Outcome:
    """One part replaced at a time, trained to the same budget; hexagons where the data are the built-in city."""
    base = diary(lab)
    cases = {
        "transformer, grid": (lab, base),
        "mamba": (lab, _with(base, "mamba", "depth")),
        "gpt2": (lab, _with(base, "gpt2")),
        "star": (lab, _with(base, "mstar.star")),
    }
    if lab.data is None:
        cases["h3"] = (replace(lab, data=lab.city("h3", resolution=8).path, _dataset=None), base)
    rows: list[dict[str, Any]] = []
    for name, (where, recipe) in cases.items():
        folder = "diary" if where is lab and recipe == base else f"swap-{name}"
        runs = [where.run(folder, recipe, seed) for seed in range(lab.seeds)]
        scores = [where.scores(run) for run in runs]
        losses = [min(e["valid_loss"] for e in run.history() if e["stage"] == "generator") for run in runs]
        size = sum(p.numel() for p in runs[0].model().backbone.parameters())
        rows.append({
            "parts": name, "parameters": size, "validation loss": _mean(losses),
            **{m: _mean([s["model"][m] for s in scores]) for m in INDIVIDUAL},
            **{f"floor, {m}": _mean([s["floor"][m] for s in scores]) for m in INDIVIDUAL},
        })  # fmt: skip
    best = min((row for row in rows if row["parts"] != "h3"), key=lambda row: row["validation loss"])["parts"]
    return Outcome(f"of the backbones on the same tokens the smallest validation loss has {best}", None, rows)


SWAP = Experiment("What becomes of the weeks when one part is replaced by another?", swap, SIZES, seeded=True)


# --------------------------------------------------------------------------------------------------- other generators


def speed(lab: Lab) -> Outcome:
    """The paper's sizes, a diary of the same width and depth, the same backbone hour by hour, and DiffTraj's network."""
    weeks = lab.settings["at_once"]
    found = benchmarks.generation(weeks, {"diary": LARGE_DIARY})
    names = list(dict.fromkeys(key.rsplit(", ", 1 if "passes" in key else 2)[0] for key in found))
    rows: list[dict[str, Any]] = []
    for name in names:
        row: dict[str, Any] = {"weeks from": name, "passes": found.get(f"{name}, passes a week")}
        for n in (1, weeks):
            for dtype in ("float32", "bfloat16"):
                row[f"{n} at once, {dtype}"] = found.get(f"{name}, {n} at once, {dtype}")
        rows.append(row)
    by = {row["weeks from"]: row for row in rows}
    told, met = [], []
    best = max(v for row in rows[:2] for k, v in row.items() if isinstance(v, float) and "at once" in k)
    for name in ("coarse to fine", "diary"):
        mine, hourly = by[name], by["hour by hour"]
        one = max(v for k, v in mine.items() if k.startswith("1 at")) / max(
            v for k, v in hourly.items() if k.startswith("1 at")
        )
        many = min(mine[f"{weeks} at once, {d}"] / hourly[f"{weeks} at once, {d}"] for d in ("float32", "bfloat16"))
        slow, fast = (
            mine[f"{weeks} at once, float32"] / by[f"diffusion, {s} steps"][f"{weeks} at once, float32"] for s in (500, 100)
        )
        told.append(
            f"{name} is {one:.1f} times as fast as hour by hour one at a time and {many:.2f} times at {weeks} at once, "
            f"{slow:.0f} times as fast as a diffusion of 500 steps and {fast:.0f} times as one of 100"
        )
        met.append(one >= 6 and many >= 1 and slow >= 500 and fast >= 100)
    return Outcome("; ".join([*told, f"at best {best:.0f} weeks per core-second (goal: 60)"]), all(met) and best >= 60, rows)


SPEED = Experiment(
    "One at a time, is it six times as fast as hour by hour, many at once as fast, and 500 and 100 times as diffusion?",
    speed,
    {size: {"weeks": 200, "at_once": 2 if size == "smoke" else 256} for size in ("smoke", "cpu", "full")},
)


def baselines(lab: Lab) -> Outcome:
    """A diary, a GPT-2 and a diffusion that all learn the same weeks, and what replays or simulates."""
    dataset, settings = lab.dataset(), lab.settings
    gpt2 = AUTOREGRESSIVE
    for key, value in settings["autoregressive"].items():
        gpt2 = gpt2.change(key, value)
    rows: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, int] = {}
    for seed in range(lab.seeds):
        made = {}
        for name, recipe in {"diary": settings["diary"], "gpt2": gpt2}.items():
            run = lab.run(f"baselines-{name}", recipe, seed)
            made[name], sizes[name] = lab.generated(run), sum(p.numel() for p in run.model().parameters())
        made["diffusion, 100 steps"], sizes["diffusion, 100 steps"] = _diffused(lab, len(made["diary"]), seed)
        for name, scores in compare(dataset, made, seed=seed)["scores"].items():
            for metric, score in scores.items():
                rows.setdefault(name, {}).setdefault(metric, []).append(score["mean"])
    table: list[dict[str, Any]] = []
    for name, found in rows.items():
        spread = {f"± {m}": float(np.std(v)) for m, v in found.items()} if lab.seeds > 1 else {}
        means = {m: _mean(v) for m, v in found.items()}
        table.append({"weeks from": name, "parameters": sizes.get(name), **means, **spread})
    mean = {row["weeks from"]: row for row in table}
    mine, floor = mean.pop("diary"), mean.pop("floor")
    near = [m for m in INDIVIDUAL if mine[m] <= 2 * floor[m]]
    half = [m for m in INDIVIDUAL if mine[m] <= 0.5 * min(row[m] for row in mean.values())]
    first = [m for m in ("density", "flow") if mine[m] < min(row[m] for row in mean.values())]
    return Outcome(
        f"the diary is within twice the floor in {_listed(near)} and at most half of the best other in {_listed(half)}; its "
        f"error is the smallest in {_listed(first)}",
        len(near) == 4 and len(half) >= 3 and len(first) == 2, table,
    )  # fmt: skip


def _diffused(lab: Lab, n: int, seed: int) -> tuple[NDArray[np.int64], int]:
    """Sequences of a diffusion that is trained once, and its parameters."""
    settings = lab.settings["diffusion"]
    file = lab.folder / f"diffusion-{settings['channels']}-{settings['epochs']}-{seed}.npz"
    if not file.exists():
        dataset, device = lab.dataset(), find_device(lab.device)
        diffusion = fit_diffusion(dataset, seed=seed, device=device, **settings)
        known = dataset.traits(("home", "work", "cluster"))[dataset.rows("train")]
        rng, random = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)
        people = torch.from_numpy(known[rng.integers(len(known), size=n)]).to(device)
        parts = [diffusion.generate(part, dataset.info.steps, generator=random) for part in people.split(64)]
        with new_file(file) as draft, draft.open("wb") as handle:
            np.savez_compressed(
                handle, cells=torch.cat(parts).cpu().numpy(), parameters=sum(p.numel() for p in diffusion.parameters())
            )
    kept = np.load(file)
    return kept["cells"], int(kept["parameters"])


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


BASELINES = Experiment(
    "Is a diary within twice the floor, half of the best other generator, and ahead of all in the population's errors?",
    baselines,
    {
        "smoke": {
            "weeks": 200, "diary": DIARY.change("training.generator.epochs", 1).change("width", 32),
            "autoregressive": {"width": 16, "training.generator.epochs": 1},
            "diffusion": {"channels": 8, "epochs": 1},
        },
        "cpu": {
            "weeks": 20_000, "diary": DIARY,
            "autoregressive": {"training.generator.epochs": 10, "training.generator.lr": 2e-3},
            "diffusion": {"channels": 32, "epochs": 40, "bfloat16": True},
        },
        "full": {
            "weeks": 100_000, "diary": LARGE_DIARY,
            "autoregressive": {"width": 256, "backbone.depth": 8, "backbone.heads": 8},
            "diffusion": {"channels": 128, "epochs": 100},
        },
    },
    seeded=True,
)  # fmt: skip
