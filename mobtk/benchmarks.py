"""Speed on this machine: one thread, per second of processor time, so that a busy machine distorts it little."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from inspect import signature
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from mobtk.backbones.fused_scan import fused_scan, kernel
from mobtk.backbones.selective_scan import torch_scan
from mobtk.baselines.diffusion import TrajectoryDiffusion
from mobtk.contracts import Paths
from mobtk.data.city import CRS, ORIGIN, make_city, write_points
from mobtk.data.prepare import prepare
from mobtk.data.visits import find_stays
from mobtk.generation import default_batch
from mobtk.mappers.grid import Grid
from mobtk.metrics.individual import dailyloc_jsd, distance_jsd, duration_jsd, profile, radius_jsd
from mobtk.models.assemble import assemble, assemble_completer, assemble_forecaster, load_part
from mobtk.models.completer import Completer
from mobtk.models.forecaster import Forecaster
from mobtk.models.generator import Generator
from mobtk.plugins import registry
from mobtk.recipe import Part, Recipe
from mobtk.testing.fixtures import walks

REFERENCE = Recipe(
    source="M-STAR's reference sizes",
    width=256,
    tokenizer=Part("rvq", {"codes": 4096, "code_width": 256, "depth": 2, "heads": 8, "head": "categorical"}),
    backbone=Part("transformer", {"depth": 4, "heads": 8}),
)
"""The sizes of Luo et al. 2025, with mobtk's parts."""

TRAITS = {"home": 900, "work": 900, "cluster": 8}
"""Values of each trait in the city of a thousand metres a cell."""

TIMED = 4
"""Steps of a diffusion that are timed."""


def metrics(weeks: int = 10_000) -> dict[str, float]:
    """Weeks per core-second to measure and compare two populations in all four individual metrics."""
    cells, mapper = _city(weeks)
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    half = len(cells) // 2

    def compare() -> None:
        a, b = (profile(part, lat, lon, 24) for part in (cells[:half], cells[half:]))
        for score in (distance_jsd, radius_jsd, duration_jsd, dailyloc_jsd):
            score(a, b)

    return {"weeks per core-second, four metrics": len(cells) / processor_seconds(compare)}


def tokenizer(weeks: int = 256) -> dict[str, float]:
    """Weeks per core-second through the reference tokenizer."""
    model, cells = _reference(), torch.from_numpy(_city(weeks)[0]).long()
    tokens = model.tokenizer.encode(cells)
    return {
        "tokens a week": model.tokenizer.schedule.n_tokens,
        "encode, weeks per core-second": len(cells) / processor_seconds(lambda: model.tokenizer.encode(cells)),
        "decode, weeks per core-second": len(cells) / processor_seconds(lambda: model.tokenizer.decode(tokens)),
    }


def generation(weeks: int = 64, others: Mapping[str, Recipe] | None = None) -> dict[str, float]:
    """Weeks per core-second from the reference generator, from one that goes hour by hour with the same backbone, from
    other recipes, and from a diffusion of DiffTraj's size with guidance, of which :data:`TIMED` steps are timed and the
    others taken to be alike.
    """
    found: dict[str, float] = {}
    recipes = {"coarse to fine": REFERENCE, **(others or {}), "hour by hour": REFERENCE.change("tokenizer", "cells")}
    for name, recipe in recipes.items():
        model = _reference(recipe)
        found[f"{name}, passes a week"] = model.tokenizer.schedule.n_groups
        for n in (1, weeks):
            for bfloat16 in (False, True):
                work = partial(_generate, model, n, bfloat16)
                found[f"{name}, {n} at once, {'bfloat16' if bfloat16 else 'float32'}"] = n / processor_seconds(work, 2)
    diffusion = TrajectoryDiffusion(Grid(CRS, ORIGIN, (30, 30)), TRAITS).eval()
    for n in (1, weeks):
        taken = processor_seconds(partial(_denoise, diffusion, n), 1) / TIMED
        for steps in (500, 100, 50):
            found[f"diffusion, {steps} steps, {n} at once, float32"] = n / (steps * taken)
    return found


def scan(batch: int = 16) -> dict[str, float]:
    """Millions of (batch, step, channel) elements of a selective scan per core-second, forward and backward, state 16:
    168 steps of 512 channels, and 96 of 24 for a field of many nodes; beside mambapy's, where that is installed.
    """
    found: dict[str, float] = {}
    for sequences, steps, channels in ((batch, 168, 512), (batch * 42, 96, 24)):
        u, delta, B, C = (torch.randn(sequences, steps, n) for n in (channels, channels, 16, 16))
        inputs = [x.requires_grad_() for x in (u, F.softplus(delta - 2), -torch.rand(channels, 16), B, C)]
        here = {"torch": torch_scan, **({"fused": fused_scan} if kernel() is not None else {})}
        ways: dict[str, Callable[..., Any]] = {}
        h = u.new_zeros(sequences, channels, 16)
        ways |= {name: partial(scan, h=h, skip=None, gate=None) for name, scan in here.items()}
        if find_spec("mambapy"):
            from mambapy.pscan import pscan

            ways["mambapy"] = partial(_by_mambapy, pscan)
        for name, way in ways.items():
            taken = processor_seconds(partial(_there_and_back, way, inputs))
            found[f"{name}, {sequences} x {steps} x {channels}"] = u.numel() / taken / 1e6
    return found


def forecasting(batch: int = 8) -> dict[str, float]:
    """A training step of each installed recipe that forecasts, at STM3's PEMS08 setting (170 nodes, 96 steps from 96): its
    core-seconds and the most memory a process of its own held, in one piece and as four accumulated micro-batches; and
    core-seconds of a forecast of one window.
    """
    found: dict[str, float] = {}
    for entry in registry().entries("recipe"):
        recipe = entry.load()
        if recipe.task != "forecast":
            continue
        recipe = recipe.change("forecast.history", 96).change("forecast.horizon", 96)
        for parts in dict.fromkeys((1, min(4, batch))):
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                seconds, memory, alone = fresh.submit(_forecaster_step, recipe, batch, parts).result()
            step = f"{entry.name}, step of {batch} windows" + (f" in {parts}" if parts > 1 else "")
            found |= {f"{step}, core-s": seconds, f"{step}, GB": memory}
        found[f"{entry.name}, forecast, core-s"] = alone
    return found


def points(batch: int = 64) -> dict[str, float]:
    """Points per core-second of each installed recipe that completes trajectories: learned, in batches, step by step; and
    told after eight known ones, 48 of each trajectory, with a cache of what was read and by a whole pass for each step.
    """
    found: dict[str, float] = {}
    for entry in registry().entries("recipe"):
        recipe = entry.load()
        if recipe.task != "complete":
            continue
        for patch in (1, 4) if "patch" in signature(load_part("tokenizer", recipe.tokenizer.name)).parameters else (1,):
            name = f"{entry.name}, patches of {patch}" if patch > 1 else entry.name
            model = assemble_completer(recipe if patch == 1 else recipe.change("tokenizer.patch", patch))
            found |= {f"{name}, {what}": rate for what, rate in _points_a_second(model, batch).items()}
    return found


def _points_a_second(model: Completer, batch: int) -> dict[str, float]:
    known, told = 8, 48
    paths = walks(batch, known + told)
    paths = replace(
        paths, lengths=torch.full_like(paths.lengths, known + told), hidden_time=torch.zeros_like(paths.hidden_time)
    )
    model.tokenizer.fit(paths)

    def learn() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            model.train().loss(paths, onward=True)["place"].backward()

    found = {"learned": batch * (known + told) / processor_seconds(learn)}
    model.eval()
    for n in (1, batch):
        some = Paths(**{f.name: getattr(paths, f.name)[:n] for f in fields(Paths)})
        found[f"told, {n} at once"] = n * told / processor_seconds(partial(model.step_by_step, some, known))

    def again_and_again() -> None:
        for n in range(known, known + told, model.tokenizer.patch):
            cut = {f.name: getattr(paths, f.name) for f in fields(Paths)}
            model.next_points(Paths(**{k: v[:, : n + model.tokenizer.patch] if v.ndim > 1 else v for k, v in cut.items()}))

    found[f"told, {batch} at once, without a cache"] = batch * told / processor_seconds(again_and_again, 1)
    return found


def _forecaster_step(recipe: Recipe, batch: int, parts: int) -> tuple[float, float, float]:
    """Processor seconds of a step and gigabytes of its process, then seconds of a forecast."""
    model = assemble_forecaster(recipe, 7 * 288, 170, 1, torch.ones(170, 170))
    values, slots = torch.randn(batch, 192, 170, 1), torch.zeros(batch, 192, dtype=torch.long)
    seconds = processor_seconds(partial(_learn, model.train(), values, slots, parts))
    return seconds, _most_memory(), processor_seconds(partial(model.eval(), values[:1, :96], slots[:1]))


def _most_memory() -> float:
    """Gigabytes that this process held at most; NaN where the system does not tell."""
    if Path("/proc/self/status").is_file():  # what getrusage says there is also of the process that started this one
        told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(told["VmHWM"].split()[0]) * 1024 / 1e9
    if find_spec("resource") is None:
        return float("nan")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def _learn(model: Forecaster, values: Tensor, slots: Tensor, parts: int) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        for some, at in zip(values.clone().tensor_split(parts), slots.clone().tensor_split(parts), strict=True):
            torch.stack(list(model.loss(some, at).values())).sum().backward()
    model.zero_grad()


def _there_and_back(scan: Callable[..., Any], inputs: list[Tensor]) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        torch.autograd.grad(scan(*inputs)[0].sum(), inputs)


def _by_mambapy(pscan: Callable[..., Tensor], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor]:
    states = pscan(torch.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None])
    return ((states @ C[..., None])[..., 0],)


def preparation(weeks: int = 100) -> dict[str, float]:
    """Rows per core-second from files to hourly cells and to stays, beside pandas' way; points of the city every minute."""
    options: dict[str, Any] = {"timezone": "Asia/Shanghai", "replace": True}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_points(folder / "p.parquet", weeks=weeks)
        frame = pd.read_parquet(folder / "p.parquet")
        frame.to_csv(folder / "p.csv", index=False)
        frame.sample(frac=1, random_state=0).to_parquet(folder / "mixed.parquet")

        def by_pandas() -> None:
            """The most visited cell of each hour of each person, by groups of pandas."""
            table = pd.read_parquet(folder / "p.parquet").drop_duplicates(["user", "time"])
            mapper = Grid.fit(table["lat"], table["lon"])
            table["cell"] = mapper.encode(table["lat"], table["lon"])
            table["time"] = table["time"].dt.tz_convert("Asia/Shanghai").dt.floor("h")
            counts = table.groupby(["user", "time", "cell"], observed=True).size()
            counts.sort_values(ascending=False).groupby(["user", "time"]).head(1)

        some = frame[frame["user"].isin(frame["user"].unique()[: max(1, len(frame["user"].unique()) // 10)])]

        def by_movingpandas() -> None:
            """Trajectories of a tenth of the people, thinned to a point an hour."""
            import movingpandas

            points = some.assign(time=some["time"].dt.tz_localize(None))
            lines = movingpandas.TrajectoryCollection(points, "user", t="time", x="lon", y="lat")
            movingpandas.MinTimeDeltaGeneralizer(lines).generalize(tolerance=timedelta(hours=1))

        def prepared(file: str) -> Callable[[], Any]:
            return lambda: prepare(folder / file, folder / "out", **options)

        found = {
            "points": float(rows),
            "prepare, Parquet, rows per core-second": rows / processor_seconds(prepared("p.parquet")),
            "prepare, Parquet in no order": rows / processor_seconds(prepared("mixed.parquet")),
            "prepare, CSV": rows / processor_seconds(prepared("p.csv")),
            "pandas groups, Parquet": rows / processor_seconds(by_pandas, 1),
            "stays, points per core-second": rows / processor_seconds(lambda: find_stays(frame)),
        }
        if find_spec("movingpandas"):
            found["movingpandas, a point an hour, from memory"] = len(some) / processor_seconds(by_movingpandas, 1)
        return found


def _generate(model: Generator, n: int, bfloat16: bool) -> None:
    """As ``mobtk generate`` does it: in parts that suit the machine."""
    batch = default_batch(model.tokenizer.schedule, torch.device("cpu"))
    for first in range(0, n, batch):
        size = min(batch, n - first)
        model.generate(torch.zeros(size, 3, dtype=torch.long), size, top_k=10, bfloat16=bfloat16)


def _denoise(diffusion: TrajectoryDiffusion, n: int) -> None:
    """A few steps, in parts that fit a processor's caches."""
    for part in torch.zeros(n, len(TRAITS), dtype=torch.long).split(16):
        diffusion.generate(part, 168, denoising_steps=TIMED, guidance=3.0)


def _city(weeks: int) -> tuple[Any, Grid]:
    city, mapper = make_city(weeks), Grid(CRS, ORIGIN, (30, 30))
    lat, lon = city.positions()
    return mapper.encode(lat.ravel(), lon.ravel()).reshape(lat.shape).astype(np.int32), mapper


def _reference(recipe: Recipe = REFERENCE) -> Generator:
    """A model for weeks of the city, with fresh weights."""
    return assemble(recipe, Grid(CRS, ORIGIN, (30, 30)), 168, TRAITS).eval()


@torch.inference_mode()
def processor_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Median processor time of a few runs in one thread after a first one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return float(np.median(taken))
