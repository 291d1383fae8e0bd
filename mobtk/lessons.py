"""What each stage of a training teaches: rows of the data, the loss of some of them, and a figure on validation data."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mobtk.contracts import Hidden, Paths
from mobtk.data.field import Field, spread
from mobtk.data.trajectories import Trajectory
from mobtk.errors import BadInput
from mobtk.models.assemble import build_masks
from mobtk.models.completer import Completer
from mobtk.models.forecaster import Forecaster
from mobtk.models.generator import Generator
from mobtk.models.paths import collate, hide, nothing_hidden, turned, window
from mobtk.models.scaling import slots
from mobtk.runs import Run
from mobtk.storage import new_file

Validate = Callable[[], tuple[float, dict[str, float]]]
"""The figure by which epochs are compared, lower is better, and what to tell."""

MOST_VALIDATED = 1024
"""Windows of a field that are validated after an epoch, evenly spread."""


class Lessons(ABC):
    """What a model is taught.

    Attributes:
        model: with fresh weights, on its device.
        stages: in order.
        rows: of the training and validation splits.
        unit: what a row is, for messages.
    """

    model: nn.Module
    stages: list[str]
    rows: dict[str, NDArray[np.int64]]
    unit: str

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The training rows in the order of a pass over them."""
        return rng.permutation(self.rows["train"])

    @abstractmethod
    def stage(self, name: str) -> tuple[nn.Module, Validate]:
        """From rows to the terms of the loss, as a module; and how it is validated. What does not learn is frozen."""


def lessons_of(run: Run, device: torch.device, folder: Path, rank: int, world: int) -> Lessons:
    """What the model of a run is taught. What is computed once for all epochs is kept in the folder."""
    if run.recipe.task == "forecast":
        return ForecasterLessons(run, device)
    if run.recipe.task == "complete":
        return CompleterLessons(run, device)
    return GeneratorLessons(run, device, folder, rank, world)


class GeneratorLessons(Lessons):
    """The tokenizer's codec first, where it learns, then the generator on its tokens."""

    unit = "sequences"

    def __init__(self, run: Run, device: torch.device, folder: Path, rank: int, world: int) -> None:
        self.device, self.folder, self.rank, self.world = device, folder, rank, world
        dataset = run.dataset()
        self.cells = torch.from_numpy(dataset.cells.copy())
        self.traits = torch.from_numpy(dataset.traits(run.recipe.traits))
        self.rows = {split: dataset.rows(split) for split in ("train", "valid")}
        if not len(self.rows["train"]):
            raise BadInput(f"dataset {dataset.path} has no training sequences")
        if not len(self.rows["valid"]):
            raise BadInput(f"dataset {dataset.path} has no validation sequences; prepare it with other --shares")
        self.model: Generator = run.model(weights=False).to(device)
        self.stages = (["tokenizer"] if self.model.tokenizer.codec is not None else []) + ["generator"]

    def stage(self, name: str) -> tuple[nn.Module, Validate]:
        """See :class:`Lessons`."""
        return self.tokenizer() if name == "tokenizer" else self.generator()

    def tokenizer(self) -> tuple[nn.Module, Validate]:
        """The codec's own loss; validated by the share of steps it gets wrong."""
        tokenizer = self.model.tokenizer
        assert tokenizer.codec is not None
        self.model.requires_grad_(False)
        tokenizer.codec.requires_grad_(True)
        valid = self.cells[self.rows["valid"][:1024]].to(self.device)

        def validate() -> tuple[float, dict[str, float]]:
            health = tokenizer.health(valid)
            return 1 - health["accuracy"], {f"valid_{k}": v for k, v in health.items()}

        return _Step(tokenizer.codec, lambda rows: tokenizer.loss(self.cells[rows].to(self.device))), validate

    def generator(self) -> tuple[nn.Module, Validate]:
        """The likelihood of tokens that were encoded once; validated by the same on other people."""
        self.model.requires_grad_(True)
        if self.model.tokenizer.codec is not None:
            self.model.tokenizer.codec.requires_grad_(False)
        tokens = self.encode()
        rows = self.rows["valid"]

        def batch(chosen: Tensor | NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
            chosen = torch.as_tensor(chosen)
            picked = torch.from_numpy(np.asarray(tokens[chosen.numpy()])).to(self.device)
            if not picked.is_floating_point():
                picked = picked.long()
            return picked, self.traits[chosen].to(self.device) if self.traits.shape[1] else None

        @torch.inference_mode()
        def validate() -> tuple[float, dict[str, float]]:
            total = 0.0
            for part in _split(rows, 128):
                total += self.model.loss(*batch(part))["tokens"].item() * len(part)
            return total / len(rows), {"valid_loss": total / len(rows)}

        return _Step(self.model, lambda chosen: self.model.loss(*batch(chosen))), validate

    def encode(self) -> NDArray[Any]:
        """Tokens of the training and validation sequences, made once and kept beside the state; other rows stay empty."""
        file = self.folder / "tokens.npy"
        if self.rank == 0 and not file.exists():
            self.model.eval()
            with torch.inference_mode():
                rows = np.concatenate([self.rows["train"], self.rows["valid"]])
                bar = tqdm(_split(rows, 512), desc="encode", unit="batch", leave=False, disable=None)
                parts = [self.model.tokenizer.encode(self.cells[part].to(self.device)).cpu() for part in bar]
            found = torch.cat(parts).numpy()
            tokens = np.zeros((len(self.cells), *found.shape[1:]), found.dtype)
            tokens[rows] = found
            with new_file(file) as draft, draft.open("wb") as handle:
                np.save(handle, tokens.astype(np.int32) if tokens.dtype.kind == "i" else tokens, allow_pickle=False)
        if self.world > 1:
            dist.barrier()
        made: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        return made


class ForecasterLessons(Lessons):
    """Windows of the training split, read from disk as they are needed; validated by the error on the validation split."""

    unit = "windows"

    def __init__(self, run: Run, device: torch.device) -> None:
        self.device = device
        settings = run.recipe.forecast
        self.windows = Windows(run.field(), settings.history, settings.horizon, settings.season)
        self.rows = {s: self.windows.field.windows(s, settings.history, settings.horizon) for s in ("train", "valid")}
        self.model: Forecaster = run.forecaster(weights=False).to(device)
        self.stages = ["forecaster"]
        stage = run.recipe.training.forecaster
        self.at_once = max(1, stage.batch // stage.accumulate)

    def stage(self, name: str) -> tuple[nn.Module, Validate]:
        """See :class:`Lessons`."""
        valid = spread(self.rows["valid"], MOST_VALIDATED)

        def batch(rows: Tensor | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            values, at = self.windows[np.asarray(rows)]
            return values.to(self.device), at.to(self.device)

        served: list[Tensor] = []  # in the first validation windows, after the epoch before

        @torch.inference_mode()
        def validate() -> tuple[float, dict[str, float]]:
            total, known = 0.0, 0
            now: list[Tensor] = []
            for part in _split(valid, self.at_once):
                values, at = batch(part)
                weight = int((~values[:, -self.model.horizon :].isnan()).sum())
                total += self.model.loss(values, at)["error"].item() * weight
                known += weight
                now = now or self.model.served()
            if not known:
                raise BadInput(
                    f"the validation split of field {self.windows.field.path} holds no value; give it other --shares"
                )
            error = total / known
            report = {"valid_loss": error}
            if now and served:
                changes = [float((a != b).float().mean()) for a, b in zip(now, served, strict=True)]
                report["expert_changes"] = float(np.mean(changes))
            served[:] = now
            return error, report

        return _Step(self.model, lambda rows: self.model.loss(*batch(rows))), validate


class Windows:
    """Windows of a field by their first steps, each with the place of its steps in the season."""

    def __init__(self, field: Field, history: int, horizon: int, season: str) -> None:
        self.field, self.length = field, history + horizon
        self.slots = slots(field, season)[0]

    def __getitem__(self, starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """``(B, T + H, N, C)`` values and ``(B, T + H)`` slots."""
        steps = starts[:, None] + np.arange(self.length)
        return torch.from_numpy(self.field.values[steps]), torch.from_numpy(self.slots[steps])


class CompleterLessons(Lessons):
    """Pieces of trajectories, read from disk as they are needed: some batches step by step, the others at once, with what
    masks hide; validated by the same, with masks that stay the same.
    """

    unit = "trajectories"

    def __init__(self, run: Run, device: torch.device) -> None:
        self.device, self.settings = device, run.recipe.complete
        self.data = run.trajectories()
        self.rows = {split: self.data.rows(split) for split in ("train", "valid")}
        for split in ("train", "valid"):
            if not len(self.rows[split]):
                raise BadInput(f"trajectories {self.data.path} have none in split {split!r}; make them with other --shares")
        self.model: Completer = run.completer(weights=False).to(device)
        self.masks, self.shares = build_masks(run.recipe)
        self.origin = run.origin()
        self.stages = ["completer"]

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See :class:`Lessons`: few row groups at a time."""
        return self.data.mixed(self.rows["train"], rng)

    def stage(self, name: str) -> tuple[nn.Module, Validate]:
        """See :class:`Lessons`."""
        share = self.settings.onward

        def loss(rows: Tensor) -> dict[str, Tensor]:
            rng = np.random.default_rng(int(torch.randint(2**62, ()).item()))
            onward = bool(rng.random() < share)
            paths = self.batch(rows.numpy(), onward, rng)
            return self.model.loss(turned(paths, rng) if self.settings.turned else paths, onward)

        @torch.inference_mode()
        def validate() -> tuple[float, dict[str, float]]:
            rng = np.random.default_rng(0)
            rows = spread(self.rows["valid"], MOST_VALIDATED)
            report, total = {}, 0.0
            for onward, weight in ((True, share), (False, 1 - share)):
                if weight:
                    figure = self._valid(rows, onward, rng)
                    report["valid_onward" if onward else "valid_at_once"] = figure
                    total += weight * figure
            return total, {"valid_loss": total, **report}

        return _Step(self.model, loss), validate

    def batch(self, rows: NDArray[np.int64], onward: bool, rng: np.random.Generator) -> Paths:
        """A piece of each trajectory, and what is hidden of it."""
        pieces = [window(self.data[int(row)], self.settings.window, rng, self.model.tokenizer.together) for row in rows]
        hidden = [self._untimed(len(p), rng) if onward else self._masked(p, rng) for p in pieces]
        return collate(
            pieces, hidden, self.data.info.timezone,
            multiple=self.model.tokenizer.patch, origin=self.origin, device=self.device,
        )  # fmt: skip

    def _untimed(self, n: int, rng: np.random.Generator) -> Hidden:
        """Moments hidden from some point on, of some trajectories."""
        found = nothing_hidden(n)
        if n > 1 and rng.random() < self.settings.untimed:
            found.time[int(rng.integers(1, n)) :] = True
        return found

    def _masked(self, trajectory: Trajectory, rng: np.random.Generator) -> Hidden:
        fits = [len(trajectory) >= mask.least for mask in self.masks]
        if not any(fits):
            return nothing_hidden(len(trajectory))
        shares = np.where(fits, self.shares, 0.0)
        return hide(trajectory, self.masks[rng.choice(len(self.masks), p=shares / shares.sum())], rng)

    def _valid(self, rows: NDArray[np.int64], onward: bool, rng: np.random.Generator) -> float:
        """Nats for each place and moment that is asked for, by so many of either."""
        total, known = 0.0, 0
        for part in _split(rows, 64):
            paths = self.batch(part, onward, rng)
            for loss, asked in zip(self.model.losses(paths, onward), self.model.asked(paths, onward), strict=True):
                total += float(torch.where(asked, loss, 0.0).sum())
                known += int(asked.sum())
        return total / max(known, 1)


def _split(rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Pieces of at most so many rows."""
    return np.array_split(rows, -(-len(rows) // most))


class _Step(nn.Module):
    """One training step as a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, trained: nn.Module, loss: Callable[[Tensor], dict[str, Tensor]]) -> None:
        super().__init__()
        self.trained, self.loss = trained, loss

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """The terms of the loss of some rows."""
        return self.loss(rows)
