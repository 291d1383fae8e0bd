"""Generation: as many people as wanted, streamed to Parquet in shards, resumable."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mobtk.data.dataset import Dataset, fixed_list, list_column
from mobtk.errors import BadInput
from mobtk.models.generator import Generator
from mobtk.runs import Run, find_device, open_run, use_bfloat16
from mobtk.schedule import Schedule
from mobtk.storage import PathLike, fingerprint, new_file, write_text

log = logging.getLogger("mobtk")

ROWS = 2048
"""Rows of a matrix product that a core works through best."""
SHARD = 4096
"""People a shard: what is drawn from one seed, written as one file, and done again if it was cut off."""


def generate(
    run: Run | PathLike,
    n: int | None = None,
    out: PathLike | None = None,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    coupling: int | None = None,
    traits: PathLike | None = None,
    seed: int = 0,
    batch: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    resume: bool = False,
    replace: bool = False,
) -> Path:
    """Generate people and write them as one Parquet file. ``mobtk generate`` does the same.

    The file has a row a person: ``id``, the traits, and ``cells``, a list of one finest cell a step; its schema
    metadata say which run and mapper they are of. The same settings give the same people.

    Args:
        run: a trained run or its folder.
        n: how many people; with a trait file, as many as it has rows by default.
        out: the file, ``generated.parquet`` in the run's folder by default.
        temperature: divides the logits; below 1 is more regular, 0 takes the likeliest. Where this or one of the next four
            is not given, the recipe's ``sampling`` says it.
        top_k: draw among the k likeliest tokens only.
        top_p: draw among the likeliest tokens that together have this probability.
        min_p: draw among tokens at least this many times as likely as the likeliest.
        coupling: steps within which tokens that are decided at once share their random numbers; 0 draws each on its
            own. A day by default. See :meth:`mobtk.models.generator.Generator.generate`.
        traits: CSV or Parquet with a column for each trait of the recipe; used in turn. By default traits are drawn
            together, as whole rows, from the training sequences.
        seed: of everything random.
        batch: people generated at once; by default as many as keep a processor's caches (:func:`default_batch`).
        precision: of matrix products: ``float32``, ``bfloat16`` or ``auto``; the recipe's by default. (At a batch below 8
            float32 is as fast.)
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on with the shards that an earlier, unfinished call wrote.
        replace: replace an existing file.

    Raises:
        BadInput: before anything is written.
    """
    run = open_run(run, "generate")
    out = Path(out) if out is not None else run.path / "generated.parquet"
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "coupling": coupling}
    sampling = how_drawn(run) | {k: v for k, v in asked.items() if v is not None}
    _check_sampling(**sampling, batch=1 if batch is None else batch, seed=seed)
    if out.exists() and not replace:
        raise BadInput(f"{out} exists already; choose another file, or replace it with --force")
    names = run.recipe.traits
    pool = _read_traits(Path(traits), run) if traits is not None else _training_traits(run)
    n = len(pool) if n is None and traits is not None else n
    if n is None or n < 1:
        raise BadInput(f"say how many people to generate, at least 1, not {n}")
    where = find_device(device)
    precision = run.recipe.training.precision if precision is None else precision
    if precision not in ("auto", "float32", "bfloat16"):
        raise BadInput(f"precision is auto, float32 or bfloat16, not {precision!r}")
    sampling["bfloat16"] = use_bfloat16(precision, where)
    model = run.model().to(where)
    batch = default_batch(model.tokenizer.schedule, where) if batch is None else batch
    if not any(entry["stage"] == "generator" for entry in run.history()):
        begun = " --resume" if run.history() else ""
        log.warning("the generator of %s is not trained yet; first: mobtk train %s%s", run.path, run.path, begun)

    settings = {
        "n": n, **sampling, "seed": seed, "batch": batch,
        "traits": str(traits) if traits else None, "weights": fingerprint(run.path / "weights.safetensors"),
    }  # fmt: skip
    parts = out.with_name(f".{out.name}.parts")
    _open_parts(parts, settings, resume, replace)
    meta = {"run": str(run.path), "step": run.data["step"], "steps_per_day": run.data["steps_per_day"]}
    about = {b"mobtk": json.dumps({**meta, "mapper": run.data["mapper"], "settings": settings}).encode()}
    with tqdm(total=n, desc="generate", unit="person", disable=None) as bar:
        for shard, first in enumerate(range(0, n, SHARD)):
            size = min(SHARD, n - first)
            file = parts / f"{shard:06d}.parquet"
            if not file.exists():
                rng = np.random.default_rng([seed, shard])
                index = np.arange(first, first + size) % len(pool) if traits else rng.integers(len(pool), size=size)
                chosen = pool[index]
                cells = _draw(model, chosen, sampling, [seed, shard], batch, where, bar)
                columns = {"id": np.arange(first, first + size)}
                columns |= {name: chosen[:, i].astype(np.int32) for i, name in enumerate(names)}
                table = pa.table({**columns, "cells": fixed_list(cells)}).replace_schema_metadata(about)
                with new_file(file) as draft:
                    pq.write_table(table, draft)
            else:
                bar.update(size)
    _join(parts, out)
    return out


def default_batch(schedule: Schedule, device: torch.device) -> int:
    """People to generate at once: on a processor, so many that the rows of the largest group stay near its caches."""
    return 256 if device.type != "cpu" else max(1, min(256, ROWS // max(schedule.lengths)))


def _draw(
    model: Generator,
    traits: NDArray[np.int64],
    sampling: Mapping[str, Any],
    seed: list[int],
    batch: int,
    device: torch.device,
    bar: tqdm,
) -> NDArray[np.int64]:
    generator = torch.Generator(device).manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    cells = []
    for part in np.array_split(traits, -(-len(traits) // batch)):
        known = torch.from_numpy(part).to(device) if part.shape[1] else None
        cells.append(model.generate(known, len(part), generator=generator, **sampling).cpu().numpy())
        bar.update(len(part))
    return np.concatenate(cells)


def _check_sampling(
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    coupling: int,
    batch: int,
    seed: int,
) -> None:
    if not temperature >= 0:
        raise BadInput(f"temperature is 0 or above, not {temperature}")
    if top_k is not None and top_k < 1:
        raise BadInput(f"top-k is at least 1, not {top_k}")
    for name, value in (("top-p", top_p), ("min-p", min_p)):
        if value is not None and not 0 < value <= 1:
            raise BadInput(f"{name} lies above 0 and up to 1, not {value}")
    if coupling < 0:
        raise BadInput(f"coupling is a number of steps, or 0 for none, not {coupling}")
    if batch < 1 or seed < 0:
        raise BadInput(f"a batch is at least 1 and a seed at least 0, not batch={batch}, seed={seed}")


def how_drawn(run: Run) -> dict[str, Any]:
    """How tokens are drawn where nothing else is said: as the recipe does, coupled within a day if it is silent on that."""
    sampling = msgspec.structs.asdict(run.recipe.sampling)
    return sampling | ({"coupling": run.data["steps_per_day"]} if sampling["coupling"] is None else {})


def _training_traits(run: Run) -> NDArray[np.int64]:
    """Rows of the training split: their joint distribution is that of the training population."""
    dataset = run.dataset()
    return dataset.traits(run.recipe.traits)[dataset.rows("train")]


def _read_traits(file: Path, run: Run) -> NDArray[np.int64]:
    if not file.is_file():
        raise BadInput(f"trait file {file} is not a file")
    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInput(f"trait file {file} cannot be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in run.recipe.traits if name not in table]
    if missing or not len(table):
        raise BadInput(
            f"trait file {file} wants rows with the columns {', '.join(run.recipe.traits)}; "
            + (f"it lacks {', '.join(missing)}" if missing else "it has none")
        )
    for name in run.recipe.traits:
        size, values = run.data["trait_sizes"][name], pd.to_numeric(table[name], errors="coerce")
        if not (values.between(-1, size - 1) & (values % 1 == 0)).all():
            raise BadInput(f"trait file {file}: {name} must be whole numbers from 0 to {size - 1} (-1 for unknown)")
    return table[list(run.recipe.traits)].to_numpy(np.int64)


def _open_parts(parts: Path, settings: dict[str, Any], resume: bool, replace: bool) -> None:
    manifest = parts / "settings.json"
    if manifest.exists() and not (resume or replace):
        raise BadInput(f"{parts} holds shards of an unfinished generation; go on with --resume, or begin anew with --force")
    if manifest.exists() and resume:
        if json.loads(manifest.read_text()) != settings:
            raise BadInput(f"{parts} holds shards of another generation (other settings or weights); do not --resume it")
    else:
        shutil.rmtree(parts, ignore_errors=True)
        write_text(manifest, json.dumps(settings))


def _join(parts: Path, out: Path) -> None:
    """All shards as one file, one at a time in memory."""
    files = sorted(parts.glob("*.parquet"))
    with new_file(out) as draft, pq.ParquetWriter(draft, pq.read_schema(files[0]), compression="zstd") as writer:
        for file in files:
            writer.write_table(pq.read_table(file))
    shutil.rmtree(parts)


def read_generated(file: PathLike, dataset: Dataset) -> NDArray[np.int32]:
    """``(n, T)`` cells of a generated file, for comparison with a dataset.

    Raises:
        BadInput: it is no such file, or its cells are of another mapper or length.
    """
    try:
        table = pq.read_table(file)
        cells = list_column(table, "cells")
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise BadInput(
            f"{file} is no generated population: {str(error).splitlines()[0]}; make one with: mobtk generate"
        ) from None
    about = json.loads((table.schema.metadata or {}).get(b"mobtk", b"{}"))
    if about.get("mapper", dataset.mapper_spec) != dataset.mapper_spec:
        raise BadInput(
            f"{file} was generated with another mapper than that of dataset {dataset.path}; evaluate it on its own"
        )
    if cells.shape[1] != dataset.info.steps or cells.min() < 0 or cells.max() >= dataset.mapper().n_cells[0]:
        raise BadInput(
            f"{file} has {cells.shape[1]} steps a person or unknown cells; dataset {dataset.path} has "
            f"{dataset.info.steps} steps"
        )
    return cells
