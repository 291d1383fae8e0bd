"""Training: stage after stage of what :mod:`mobtk.lessons` has for a model.

A training can be killed at any moment and resumed exactly: everything random at a step is drawn from (seed, stage,
step, rank) alone (but for the secret noise of a private one), and ``state/`` is replaced as one file. ``torchrun`` splits
each batch over its processes.
"""

import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mobtk.errors import BadInput
from mobtk.lessons import lessons_of
from mobtk.privacy import PrivateSteps
from mobtk.recipe import Stage
from mobtk.runs import Run, find_device, read_weights, save_tensors, save_weights, use_bfloat16
from mobtk.storage import write_text

log = logging.getLogger("mobtk")

SAVE_SECONDS = 300
"""Besides every epoch, the state is saved when this long has passed."""


TELL_SECONDS = 30
"""Where there is no terminal for a progress bar, a line is written when this long has passed."""


class Stopped(Exception):
    """Training was interrupted; its state is saved, and ``train(run, resume=True)`` goes on."""


@dataclass
class Progress:
    """How far a training has come; everything that the state holds besides tensors."""

    stage: str
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    waited: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    privacy: dict[str, float] | None = None
    frozen: tuple[str, ...] = ()


def train(
    run: Run | str | Path,
    *,
    resume: bool = False,
    restart: bool = False,
    until: str | None = None,
    start: Run | str | Path | None = None,
    freeze: Sequence[str] = (),
    device: str = "auto",
) -> Run:
    """Train a run, stage by stage. ``mobtk train`` does the same.

    Args:
        run: the run or its folder.
        resume: go on where an earlier training stopped or was killed.
        restart: forget an earlier training.
        until: stage after which to stop: ``tokenizer``, to see its health first. ``resume`` goes on with the next.
        start: another run, with whose weights this training begins, as far as names and shapes are the same.
        freeze: parts that do not learn, such as ``backbone``, or ``tokenizer.embed``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``.

    Raises:
        BadInput: the run has a training already and neither ``resume`` nor ``restart`` was said; or there is nothing to take
            from the other run, or to freeze.
        Stopped: interrupted by Ctrl-C or a termination signal, after saving the state.
    """
    run = run if isinstance(run, Run) else Run(run)
    where = find_device(device)
    with _processes(where) as (rank, world):
        _Trainer(run, rank, world, where).train(resume, restart, until, start, tuple(freeze))
    return run


class _Trainer:
    def __init__(self, run: Run, rank: int, world: int, device: torch.device) -> None:
        self.run, self.rank, self.world = run, rank, world
        self.device = device
        self.settings = run.recipe.training
        self.state_file = run.path / "state" / "state.safetensors"
        self.best: dict[str, Tensor] = {}
        self.moments: dict[str, dict[str, Tensor]] = {}
        self.progress = Progress("")
        self.lessons = lessons_of(run, device, self.state_file.parent, rank, world)

    def train(
        self, resume: bool, restart: bool, until: str | None, start: Run | str | Path | None, freeze: tuple[str, ...]
    ) -> None:
        exists = self.state_file.exists()
        if exists and not (resume or restart):
            raise BadInput(f"run {self.run.path} has a training already; go on with --resume, or begin anew with --restart")
        self.model = self.lessons.model
        stages = self.lessons.stages
        if until is not None and until not in stages:
            raise BadInput(f"run {self.run.path} has no stage {until!r}; it has {' and '.join(stages)}")
        if exists and resume:
            self.load_state()
            if start is not None or freeze not in ((), self.progress.frozen):
                raise BadInput(f"the training of {self.run.path} goes on as it was begun; leave --from and --freeze out")
        else:
            self.check_frozen(freeze)
            if start is not None:
                self.begin_with(start if isinstance(start, Run) else Run(start), freeze)
            if self.rank == 0:
                shutil.rmtree(self.state_file.parent, ignore_errors=True)
            self.progress = Progress(stages[0], frozen=freeze)
        if self.progress.done:
            log.info("the training of %s is complete already", self.run.path)
            return
        if until is not None and stages.index(until) < stages.index(self.progress.stage):
            log.info("the training of %s is past stage %s already", self.run.path, until)
            return
        for name in stages[stages.index(self.progress.stage) :]:
            if self.progress.stage != name:
                self.progress = Progress(name, history=self.progress.history, frozen=self.progress.frozen)
                self.best.clear()
                self.moments.clear()
            self.train_stage(name, stages.index(name))
            if name == until and name != stages[-1]:
                return
        self.progress.done = True
        self.save_state({})

    def check_frozen(self, freeze: tuple[str, ...]) -> None:
        """Refuse to freeze what is not there, or everything."""
        names = [name for name, _ in self.model.named_parameters()]
        parts = sorted({name.split(".")[0] for name in names})
        for part in freeze:
            if not any(_belongs(name, (part,)) for name in names):
                raise BadInput(f"run {self.run.path} has nothing called {part!r} to freeze; it has {', '.join(parts)}")
        if all(_belongs(name, freeze) for name in names):
            raise BadInput(f"nothing of run {self.run.path} would learn; freeze less than {', '.join(freeze)}")

    def begin_with(self, other: Run, freeze: tuple[str, ...]) -> None:
        """Take over the weights of another run that have a name and a shape of ours."""
        weights, ours = read_weights(other.path / "weights.safetensors"), self.model.state_dict()
        fits = {k: v for k, v in weights.items() if k in ours and v.shape == ours[k].shape}
        learned = {name for name, _ in self.model.named_parameters()}
        if not any(fits[name].ndim > 1 for name in learned & set(fits)):
            raise BadInput(
                f"run {other.path} has no weights of the shapes of run {self.run.path}; start from one of its recipe"
            )
        if fresh_frozen := sorted(name for name in learned - set(fits) if _belongs(name, freeze)):
            raise BadInput(
                f"run {other.path} has no weights for {fresh_frozen[0]}, which would begin anew and be frozen; start from a "
                "run of the same recipe, or freeze less"
            )
        self.model.load_state_dict(fits, strict=False)
        if fresh := sorted({k.rsplit(".", 1)[0] for k in set(ours) - set(fits)}):
            log.info("begins anew: %s; all else as in %s", ", ".join(fresh), other.path)

    # ------------------------------------------------------------------------------------------------ one stage

    def train_stage(self, name: str, number: int) -> None:
        stage: Stage = getattr(self.settings, name)
        step_module, validate = self.lessons.stage(name)
        frozen = self.progress.frozen
        taught = [key for key, module in self.model.named_modules() if module is getattr(step_module, "trained", None)]
        if frozen and any(_belongs(key, frozen) for key in taught):
            log.info("stage %s is left out: what it teaches is frozen", name)
            return
        for key, weight in self.model.named_parameters():
            if _belongs(key, frozen):
                weight.requires_grad_(False)
        parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        optimizer = self.optimizer(parameters, stage)
        wrapped: nn.Module = step_module
        if self.world > 1 and parameters:
            wrapped = DistributedDataParallel(step_module, find_unused_parameters=True)
        divisor = self.world * stage.accumulate
        if stage.batch % divisor:
            raise BadInput(
                f"a batch of {stage.batch} cannot be split over {self.world} processes with accumulate="
                f"{stage.accumulate}; use a multiple of {divisor}"
            )
        rows, unit = self.lessons.rows["train"], self.lessons.unit
        if len(rows) < divisor:
            raise BadInput(f"{len(rows)} training {unit} are fewer than {divisor}, one for each process")
        batch = min(stage.batch, len(rows) // divisor * divisor)
        batches = len(rows) // batch
        total = max(1, round(stage.epochs * batches))
        epochs = math.ceil(total / batches)
        p = self.progress
        use_bfloat16 = self.use_bfloat16(name)
        private = self.private(optimizer, stage, total)
        saved = told = time.monotonic()
        with _interrupts() as interrupted:
            while p.step < total and p.waited < stage.patience:
                order = self.lessons.order(np.random.default_rng([self.settings.seed, number, p.epoch]))
                started, first = time.perf_counter(), p.batch
                last = min(batches, p.batch + total - p.step)
                step_module.train()
                for key, module in self.model.named_modules():
                    if frozen and _belongs(key, frozen):
                        module.eval()  # nor does it learn by averages, or drop anything
                title = f"{name} {p.epoch + 1}/{epochs}"
                bar = tqdm(
                    total=last,
                    initial=p.batch,
                    desc=title,
                    unit="batch",
                    leave=False,
                    disable=None if self.rank == 0 else True,
                )
                while p.batch < last:
                    torch.manual_seed(_seed(self.settings.seed, number, p.step, self.rank))
                    lr = stage.lr * _warm_cosine(p.step, total, stage.warmup)
                    for group in optimizer.param_groups:
                        group["lr"] = lr
                    chosen = order[p.batch * batch : (p.batch + 1) * batch].reshape(stage.accumulate, -1)
                    if private is None:
                        terms = self.step(wrapped, optimizer, parameters, chosen, stage, use_bfloat16)
                    else:
                        terms = private.step(rows, lambda some: self.losses(wrapped, some, use_bfloat16))
                    for key, value in terms.items():
                        p.sums[key] = p.sums.get(key, 0.0) + value
                    p.batch, p.step = p.batch + 1, p.step + 1
                    bar.update()
                    bar.set_postfix(loss=f"{terms['loss']:.4f}", refresh=False)
                    if bar.disable and self.rank == 0 and time.monotonic() - told > TELL_SECONDS:
                        log.info("%s: batch %d of %d, loss %.4g", title, p.batch, last, terms["loss"])
                        told = time.monotonic()
                    stop = self.agree(bool(interrupted))
                    if (stop or time.monotonic() - saved > SAVE_SECONDS) and p.batch < last:
                        self.save_state(optimizer.state_dict()["state"], parameters)
                        saved = time.monotonic()
                        if stop:
                            bar.close()
                            raise Stopped(f"stopped in epoch {p.epoch + 1} of stage {name}")
                bar.close()
                seconds = time.perf_counter() - started
                step_module.eval()
                figure, report = validate()
                if private is not None:
                    report["epsilon"] = private.epsilon(p.step)
                if not math.isfinite(p.sums["loss"]):
                    raise BadInput(
                        f"the loss of stage {name} is not finite in epoch {p.epoch + 1}; lower its learning rate: build "
                        f"the run again with --set training.{name}.lr={stage.lr / 3:g}"
                    )
                means = {k: v / last for k, v in p.sums.items()}
                better = private is not None or p.best is None or figure < p.best
                p.waited = 0 if better else p.waited + 1
                kept = better or figure == p.best  # among equals the last, which has learned longest
                if kept:
                    p.best = figure
                    self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
                entry = {"stage": name, "epoch": p.epoch + 1, "step": p.step, **means, **report, "lr": lr}
                p.history.append(entry)
                rate = (last - first) * batch / max(seconds, 1e-9)
                if self.rank == 0:
                    shown = "  ".join(f"{k} {v:.4g}" for k, v in {**means, **report}.items() if "scale" not in k)
                    log.info("%s %d/%d  %s  (%.0f %s/s)", name, p.epoch + 1, epochs, shown, rate, unit)
                    if kept:
                        save_weights(self.run.path / "weights.safetensors", self.model)
                p.epoch, p.batch, p.sums = p.epoch + 1, 0, {}
                self.save_state(optimizer.state_dict()["state"], parameters)
                saved = time.monotonic()
                if self.agree(bool(interrupted)):
                    raise Stopped(f"stopped after epoch {p.epoch} of stage {name}")
        self.model.load_state_dict(self.best)

    def step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: dict[str, nn.Parameter],
        chosen: NDArray[np.int64],
        stage: Stage,
        use_bfloat16: bool,
    ) -> dict[str, float]:
        """One optimizer step over the micro-batches of this process; the mean of each loss term over all."""
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for i, rows in enumerate(chosen):
            last = i == len(chosen) - 1
            sync = module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()
            with sync:
                terms = self.losses(module, rows[self.rank :: self.world], use_bfloat16)
                loss = torch.stack(list(terms.values())).sum()
                if parameters:  # a codec may learn by averages alone
                    (loss / len(chosen)).backward()
            for key, value in {"loss": loss, **terms}.items():
                sums[key] = sums.get(key, torch.zeros((), device=self.device)) + value.detach().float() / len(chosen)
        nn.utils.clip_grad_norm_(parameters.values(), stage.clip)
        optimizer.step()
        values = torch.stack(list(sums.values()))
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return dict(zip(sums, values.tolist(), strict=True))

    def losses(self, module: nn.Module, rows: NDArray[np.int64], use_bfloat16: bool) -> dict[str, Tensor]:
        """The terms of the loss of some rows."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use_bfloat16):
            terms: dict[str, Tensor] = module(torch.from_numpy(rows))
        return terms

    def private(self, optimizer: torch.optim.Optimizer, stage: Stage, steps: int) -> PrivateSteps | None:
        """How steps are taken that keep the recipe's bound on privacy, if it has one."""
        privacy, found = self.settings.privacy, None
        if privacy.epsilon is not None:
            if self.world > 1 or stage.accumulate > 1:
                raise BadInput("training.privacy takes its steps in one process and without accumulate")
            people = self.run.dataset().users[self.lessons.rows["train"]]
            found = PrivateSteps(optimizer, people, stage.batch, steps, privacy)
        kept = None if found is None else found.settings
        if self.progress.step and self.progress.privacy != kept:
            raise BadInput(
                f"run {self.run.path} was begun with other settings of privacy, steps or batch: no bound would hold for it; "
                "begin anew with --restart"
            )
        self.progress.privacy = kept
        if found is None:
            return None
        log.info(
            "differential privacy: epsilon %g at delta %g for each of %d people, noise %.3g, in %d steps",
            privacy.epsilon, privacy.delta, len(found.names), found.noise, steps,
        )  # fmt: skip
        return found

    def optimizer(self, parameters: dict[str, nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """AdamW (Loshchilov and Hutter 2019), without decay for vectors; moments as they were saved."""
        decay = [p for p in parameters.values() if p.ndim >= 2]
        rest = [p for p in parameters.values() if p.ndim < 2]
        groups = [{"params": decay, "weight_decay": stage.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=stage.lr, betas=(0.9, 0.95))
        names = {id(p): n for n, p in parameters.items()}
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if moments := self.moments.get(names[id(p)]):
                optimizer.state[p] = moments
        return optimizer

    def use_bfloat16(self, stage: str) -> bool:
        """Where the recipe says auto: on the generator, if the processor multiplies bfloat16 natively.

        The codec searches nearest neighbours in float32 and gains nothing.
        """
        if self.settings.precision == "auto" and stage == "tokenizer":
            return False
        return use_bfloat16(self.settings.precision, self.device)

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop."""
        if self.world == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    # ------------------------------------------------------------------------------------------------- its state

    def save_state(self, moments: dict[int, dict[str, Tensor]], parameters: dict[str, nn.Parameter] | None = None) -> None:
        """Model, best weights, optimizer and progress, in one file that is replaced as a whole."""
        if self.rank:
            return
        # optimizer states are numbered by group: matrices first, then vectors
        named = sorted((parameters or {}).items(), key=lambda item: item[1].ndim < 2)
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        for i, state in moments.items():
            tensors |= {f"moments/{named[i][0]}/{k}": v for k, v in state.items()}
        tensors = {k: v.detach().cpu().clone() for k, v in tensors.items()}
        save_tensors(self.state_file, tensors, {"progress": msgspec.json.encode(self.progress).decode()})
        lines = "".join(json.dumps(entry) + "\n" for entry in self.progress.history)
        write_text(self.run.path / "history.jsonl", lines)

    def load_state(self) -> None:
        """The other way round."""
        try:
            with safe_open(self.state_file, "pt", device=str(self.device)) as file:
                self.progress = msgspec.json.decode(file.metadata()["progress"], type=Progress)
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
            raise BadInput(f"{self.state_file} is damaged: {error}; begin anew with --restart") from None
        try:
            self.model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
        except RuntimeError:
            raise BadInput(
                f"{self.state_file} is the state of another model: was recipe.toml changed? Begin anew with --restart"
            ) from None
        self.best = {k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")}
        for key, value in tensors.items():
            if key.startswith("moments/"):
                name, _, moment = key.removeprefix("moments/").rpartition("/")
                self.moments.setdefault(name, {})[moment] = value.cpu() if moment == "step" else value


def _belongs(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter is of one of some parts."""
    return any(name == part or name.startswith(part + ".") for part in parts)


def _warm_cosine(step: int, total: int, warmup: float) -> float:
    """Linear rise over the first share of the steps, then half a cosine down to a tenth."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C and termination signals, noted instead of raised, so that a step is never cut in half."""
    caught: list[int] = []
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda n, frame: caught.append(n))
    except ValueError:  # not the main thread: then nobody can interrupt us here
        pass
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _processes(device: torch.device) -> Iterator[tuple[int, int]]:
    """Rank and number of processes, as torchrun says."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    mine = not dist.is_initialized()
    if mine:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        if mine:
            dist.destroy_process_group()
