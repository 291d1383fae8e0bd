"""Is a generated population of use? A predictor of the next place learns from it, and is tested on real people."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mobtk._version import __version__
from mobtk.data.dataset import Dataset, Info, fixed_list
from mobtk.errors import BadInput
from mobtk.generation import read_generated
from mobtk.metrics.next_place import accuracy_at, rank_bounds
from mobtk.models.generator import Generator
from mobtk.recipe import Part, Recipe, Stage, Training
from mobtk.runs import Run, open_run
from mobtk.storage import PathLike
from mobtk.training import train

PREDICTOR = Recipe(
    source="a small transformer over cells, hour by hour",
    width=64,
    tokenizer=Part("mobtk.cells"),
    backbone=Part("mobtk.transformer", {"depth": 2, "heads": 4, "adaptive": False}),
    traits=(),
    training=Training(generator=Stage(epochs=5, batch=16, lr=2e-3)),
)
"""What learns to foretell the next place, alike from either population."""


def usefulness(
    run: Run | PathLike,
    generated: PathLike | None = None,
    *,
    n: int | None = None,
    seeds: int = 1,
    epochs: float = 5,
    device: str = "auto",
) -> dict[str, Any]:
    """Next-place accuracy on real test people, step by step, of a predictor trained on generated and on real sequences.

    "Train on synthetic, test on real" (Esteban et al. 2017, https://arxiv.org/abs/1706.02633). Both train on equally many
    sequences and are validated on the same real ones. ``mobtk evaluate --task usefulness`` does the same.

    Args:
        run: what generated it, or its folder.
        generated: the file; ``generated.parquet`` in the run's folder by default.
        n: sequences to train on; as many as both have by default.
        seeds: trainings of each.
        epochs: passes over them.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        BadInput: steps are events, or there is too little.
    """
    run = open_run(run, "generate")
    dataset = run.dataset()
    if dataset.info.step == "event":
        raise BadInput("--task usefulness wants sequences of regular steps; these are of events")
    file = generated if generated is not None else run.path / "generated.parquet"
    made = read_generated(file, dataset)
    train_rows = dataset.rows("train")
    most = min(len(made), len(train_rows))
    if n is not None and not 16 <= n <= most:
        raise BadInput(f"n={n} is not within 16..{most}, what there is of both")
    size = n or most
    scores: dict[str, list[dict[str, float]]] = {"trained on generated": [], "trained on real": []}
    test = dataset.cells[dataset.rows("test")].astype(np.int64)
    with tempfile.TemporaryDirectory() as name:
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            cells = made[rng.permutation(len(made))[:size]]
            rows = rng.choice(train_rows, size, replace=False)
            for source, training in (("trained on generated", cells), ("trained on real", dataset.cells[rows])):
                folder = Path(name) / f"{source.split()[-1]}-{seed}"
                recipe = PREDICTOR.change("training.seed", seed).change("training.generator.epochs", epochs)
                predictor = Run.create(folder / "run", recipe, _with_training(dataset, training, folder / "data"))
                scores[source].append(_foretell(train(predictor, device=device).model(), test))
    means = {source: {k: _spread([s[k] for s in some]) for k in some[0]} for source, some in scores.items()}
    a, b = means.values()
    result = {
        "task": "usefulness",
        "n": size,
        "seeds": seeds,
        "dataset": {"path": str(dataset.path), "name": dataset.info.name, "rows": dataset.info.split},
        "generated": str(file),
        "scores": means,
        "ratio": {k: a[k]["mean"] / b[k]["mean"] if b[k]["mean"] else float("nan") for k in a},
        "recipe": msgspec.to_builtins(PREDICTOR),
        "mobtk": __version__,
    }
    run.write_result("usefulness", result)
    return result


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


@torch.inference_mode()
def _foretell(model: Generator, cells: NDArray[np.int64]) -> dict[str, float]:
    """Acc@1 and Acc@5 of each step after the first given all before it; of all steps, and of those at which people move."""
    higher, tied = [], []
    for part in np.array_split(cells, -(-len(cells) // 64)):
        tokens = model.tokenizer.encode(torch.from_numpy(part))
        x, cond = model.inputs(tokens)
        hidden = model.backbone(x, model.tokenizer.schedule, cond)
        logits = model.tokenizer.head.logits(hidden[:, 1:], x[:, 1:]).flatten(0, 1)  # type: ignore[operator]
        a, b = rank_bounds(logits.numpy(), part[:, 1:].ravel())
        higher.append(a)
        tied.append(b)
    h, t = np.concatenate(higher), np.concatenate(tied)
    moves = (cells[:, 1:] != cells[:, :-1]).ravel()
    found = {f"acc@{k}": accuracy_at(k, h, t) for k in (1, 5)}
    of_moves = {f"acc@{k}, moves": accuracy_at(k, h[moves], t[moves]) if moves.any() else float("nan") for k in (1, 5)}
    return found | of_moves


def _with_training(dataset: Dataset, cells: Any, out: Path) -> Dataset:
    """The dataset with other training sequences: each of a person of its own."""
    table = dataset.to_arrow()
    keep = table.filter(pa.array(dataset.column("split") != "train"))
    columns = ["user", "start", "split", "cells"]
    schema = table.select(columns).schema
    fresh = pa.table(
        {
            "user": pa.array([f"train-{i}" for i in range(len(cells))], schema.field("user").type),
            "start": pa.array([dataset.starts[0]] * len(cells), schema.field("start").type),
            "split": pa.array(["train"] * len(cells), schema.field("split").type),
            "cells": fixed_list(cells.astype(np.int64)).cast(schema.field("cells").type),
        }
    )
    info: Info = msgspec.convert(msgspec.to_builtins(dataset.info), Info)
    info.trait_sizes, info.funnel = {}, []
    both = pa.concat_tables([fresh, keep.select(columns)])
    return Dataset.write(out, info, (dataset.mapper_spec["name"], dataset.mapper()), [both])
