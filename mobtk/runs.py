"""A run: a folder with a recipe, weights and everything that happened to them.

recipe.toml            the parts, their options, how it is trained (full names of parts)
data.json              the dataset it is for: where, its steps, traits and mapper
weights.safetensors    the best weights so far
history.jsonl          one line an epoch
state/                 what an exact resume needs
environment.json       versions, machine, plugins
results/*.json         scores, with the cards of their metrics
"""

import copy
import json
import logging
import os
import platform
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mobtk._version import __version__
from mobtk.contracts import SpatialMapper
from mobtk.data.city import prepare_city
from mobtk.data.dataset import Dataset, Info
from mobtk.data.field import Field
from mobtk.data.kinds import open_dataset
from mobtk.data.prepare_field import make_field
from mobtk.data.trajectories import Trajectories, TrajectoriesInfo
from mobtk.data.walks import make_walks
from mobtk.errors import BadInput
from mobtk.inventory import load
from mobtk.models.assemble import assemble, assemble_completer, assemble_forecaster, check
from mobtk.models.completer import Completer
from mobtk.models.forecaster import Forecaster
from mobtk.models.generator import Generator
from mobtk.models.paths import collate, nothing_hidden
from mobtk.models.scaling import slots
from mobtk.plugins import loaded, registry
from mobtk.recipe import PARTS_OF_TASK, Part, Recipe
from mobtk.storage import PathLike, new_file, new_folder, to_json, write_text

log = logging.getLogger("mobtk")

Data = Dataset | Field | Trajectories

FITTED = 512
"""Trajectories on which a completer's units are measured."""

DATA = {
    "generate": {"name", "dataset", "step", "steps", "steps_per_day", "trait_sizes", "mapper", "sha256"},
    "forecast": {"name", "dataset", "step", "start", "cuts", "nodes", "channels", "sha256", "graph_sha256"},
    "complete": {"name", "dataset", "centre", "sha256"},
}
"""What ``data.json`` says of the data a run is for."""


class Run:
    """A run, read from its folder.

    Args:
        path: the folder.

    Raises:
        BadInput: it is no run, or one of its files is damaged.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not (self.path / "recipe.toml").is_file():
            raise BadInput(f"{path} is not a run (it has no recipe.toml); make one with: mobtk build -o {path}")
        loaded().add_beside(self.path)
        self.recipe = Recipe.load(self.path / "recipe.toml")
        self._check_plugins()
        try:
            self.data: dict[str, Any] = json.loads((self.path / "data.json").read_text(encoding="utf-8"))
            if missing := DATA[self.recipe.task] - set(self.data):
                raise ValueError(f"{', '.join(sorted(missing))} is missing")
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(f"run {path} is damaged: data.json: {error}; build it again") from None

    def __repr__(self) -> str:
        parts = ", ".join(f"{kind}={getattr(self.recipe, kind).name}" for kind in PARTS_OF_TASK[self.recipe.task])
        return f"Run({str(self.path)!r}, {parts})"

    def _check_plugins(self) -> None:
        """Say which plugins are missing that the run was made with, and how to get them; or that they are others now."""
        for name in sorted({p.name.rpartition(".")[0] for p in self.recipe.parts()} - {"", "mobtk"}):
            try:
                made = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))["plugins"][name]
            except (OSError, ValueError, KeyError):
                made = ""
            now = next((p.origin for p in loaded().plugins if p.name == name and not p.problem), None)
            if now is None:
                skipped = next((p for p in loaded().plugins if p.name == name), None)
                how = "install it"
                if skipped:
                    how = f"it was skipped: {skipped.problem}"
                elif os.environ.get("MOBTK_PLUGINS") is not None:
                    how = "name it in MOBTK_PLUGINS, or unset that"
                elif made.endswith(".py"):
                    how = f"give it with: mobtk --plugin {shlex.quote(made)}"
                elif made.count(" ") == 1:
                    how = f"install it: pip install {made.replace(' ', '==')}"
                known = f" ({made})" if made else ""
                raise BadInput(f"{self.path} was made with plugin {name!r}{known}, which is not loaded; {how}")
            if made and now.split()[0] != made.split()[0]:
                log.warning("%s was made with plugin %r of %s, and now that is of %s", self.path, name, made, now)

    @classmethod
    def create(
        cls, path: PathLike, recipe: Recipe, dataset: Data | None, *, weeks: int = 10_000, replace: bool = False
    ) -> Self:
        """Write a new run with fresh weights. Without a dataset, the built-in city is prepared inside the folder; for a
        forecaster, the field of its people; for a completer, so many walks.
        """
        check(recipe)
        recipe = copy.deepcopy(recipe)  # a recipe of a plugin stays as it is
        for kind in PARTS_OF_TASK[recipe.task]:
            getattr(recipe, kind).name = registry().find(kind, getattr(recipe, kind).name).full_name
        for mask in recipe.complete.masks:
            mask.name = registry().find("mask", mask.name).full_name
        with new_folder(path, replace=replace, inputs=[dataset.path] if dataset else []) as folder:
            where = "data" if dataset is None else os.path.relpath(dataset.path.resolve(), Path(path).resolve())
            if dataset is None:
                dataset = built_in(folder, recipe, weeks)
            model, data = _fitted(recipe, dataset)
            _try(model, recipe, dataset)
            step = {} if isinstance(dataset, Trajectories) else {"step": dataset.info.step}
            data = {"name": dataset.info.name, "dataset": where, **step, **data}
            write_text(folder / "recipe.toml", recipe.dumps())
            write_text(folder / "data.json", json.dumps(data))
            write_text(folder / "environment.json", json.dumps(environment(), indent=1))
            save_weights(folder / "weights.safetensors", model)
        return cls(path)

    def field(self, path: PathLike | None = None) -> Field:
        """The field a forecaster was built for, or another one with the same nodes, channels and step.

        Raises:
            BadInput: the other one does not fit the model, or its own is not what it was; or this is no forecaster.
        """
        open_run(self, "forecast")
        field = Field(path or self.path / self.data["dataset"])
        if path is None and any(value != self.data[key] for key, value in identity(field).items()):
            raise BadInput(f"field {field.path} was made again since run {self.path} was built for it; build the run again")
        have = (field.nodes["name"].astype(str).tolist(), list(field.info.channels), field.info.step)
        for what, a, b in zip(("nodes", "channels", "steps"), have, [self.data[k] for k in ("nodes", "channels", "step")],
                              strict=True):  # fmt: skip
            if a != b:
                raise BadInput(f"field {field.path} has other {what} than the model of run {self.path}; build a run for it")
        return field

    def trajectories(self, path: PathLike | None = None) -> Trajectories:
        """The trajectories a completer was built for, or any others.

        Raises:
            BadInput: its own are not what they were; or this is no completer.
        """
        open_run(self, "complete")
        found = Trajectories(path or self.path / self.data["dataset"])
        if path is None and found.info.sha256 != self.data["sha256"]:
            raise BadInput(
                f"trajectories {found.path} were made again since run {self.path} was built for them; build the run again"
            )
        return found

    def origin(self) -> tuple[float, float] | None:
        """Latitude and longitude from which a completer measures places; of each trajectory its first point if ``None``."""
        lat, lon = self.data["centre"]
        return (lat, lon) if self.recipe.complete.origin == "centre" else None

    def dataset(self, path: PathLike | None = None) -> Dataset:
        """The dataset it was built for, or another one with the same mapper, steps and traits.

        Raises:
            BadInput: the other one does not fit the model, or its own is not what it was.
        """
        open_run(self, "generate")
        dataset = Dataset(path or self.path / self.data["dataset"])
        if path is None and dataset.info.sha256 != self.data["sha256"]:
            raise BadInput(
                f"dataset {dataset.path} was prepared again since run {self.path} was built for it; build the run again"
            )
        if _resolved(dataset.mapper_spec) != _resolved(self.data["mapper"]):
            raise BadInput(
                f"dataset {dataset.path} was made with mapper {_describe(dataset.mapper_spec)}, the model of run "
                f"{self.path} with {_describe(self.data['mapper'])}; prepare the data with the model's mapper, or build "
                "a run for this dataset"
            )
        if dataset.info.steps != self.data["steps"]:
            raise BadInput(
                f"dataset {dataset.path} has {dataset.info.steps} steps a sequence, the model of run {self.path} "
                f"{self.data['steps']}; prepare it with that --period"
            )
        for name in self.recipe.traits:
            size, ours = dataset.info.trait_sizes.get(name), self.data["trait_sizes"][name]
            if size != ours:
                raise BadInput(
                    f"trait {name!r} has {size or 'no'} values in dataset {dataset.path} and {ours} in the model of run "
                    f"{self.path}; build a run for this dataset"
                )
        return dataset

    def mapper(self) -> SpatialMapper:
        """The mapper its cells belong to."""
        spec = self.data["mapper"]
        mapper: SpatialMapper = registry().find("mapper", spec["name"]).load()(**spec["config"])
        return mapper

    def forecaster(self, *, weights: bool = True) -> Forecaster:
        """The forecaster, with the best weights so far (or fresh ones), in eval mode."""
        model, _ = _fitted_forecaster(self.recipe, self.field(), fit=not weights)
        if weights:
            load_weights(self.path / "weights.safetensors", model)
        return model.eval()

    def completer(self, *, weights: bool = True) -> Completer:
        """The completer, with the best weights so far (or fresh ones), in eval mode."""
        if weights:
            open_run(self, "complete")
            model = assemble_completer(self.recipe)
            load_weights(self.path / "weights.safetensors", model)
        else:
            model, _ = _fitted_completer(self.recipe, self.trajectories())
        return model.eval()

    def model(self, *, weights: bool = True) -> Generator:
        """The generator, with the best weights so far (or fresh ones), in eval mode."""
        open_run(self, "generate")
        model = assemble(self.recipe, self.mapper(), self.data["steps"], self.data["trait_sizes"])
        if weights:
            load_weights(self.path / "weights.safetensors", model)
        return model.eval()

    def history(self) -> list[dict[str, Any]]:
        """One entry an epoch, of all stages."""
        file = self.path / "history.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def write_result(self, name: str, result: Mapping[str, Any]) -> Path:
        """Store a result file; what is of another split than test has its name there."""
        split = result.get("split", "test")
        file = self.path / "results" / (f"{name}.json" if split == "test" else f"{name}-{split}.json")
        write_text(file, to_json(result))
        return file


def open_run(run: Run | PathLike, task: str) -> Run:
    """A run of a task, as it is or from its folder.

    Raises:
        BadInput: it is of another task.
    """
    run = run if isinstance(run, Run) else Run(run)
    if run.recipe.task != task:
        what = {"generate": "places people", "forecast": "forecasts a field", "complete": "completes trajectories"}
        raise BadInput(f"run {run.path} {what[run.recipe.task]}; this wants one that {what[task]}")
    return run


def built_in(folder: Path, recipe: Recipe, weeks: int) -> Data:
    """The built-in city for a recipe that has no dataset, as ``data`` in a folder; for a completer, made-up walks."""
    if recipe.task == "complete":
        return make_walks(folder / "data", n=weeks)
    if recipe.task == "forecast":
        if (folder / "people").exists():  # of a try that was interrupted
            shutil.rmtree(folder / "people")
        people = prepare_city(folder / "people", weeks=weeks)
        return make_field(people.path, folder / "data", graph="nearest", name=f"flows of {people.info.name}")
    return prepare_city(folder / "data", weeks=weeks, mapper=recipe.mapper.name, mapper_options=recipe.mapper.options)


def _fitted(recipe: Recipe, dataset: Data) -> tuple[Generator | Forecaster | Completer, dict[str, Any]]:
    """The model of a recipe for a dataset, and what ``data.json`` must hold of that."""
    if isinstance(dataset, Field):
        return _fitted_forecaster(recipe, dataset)
    if isinstance(dataset, Trajectories):
        return _fitted_completer(recipe, dataset)
    info = dataset.info
    model = assemble(recipe, dataset.mapper(), info.steps, info.trait_sizes)
    return model, {
        "steps": info.steps,
        "steps_per_day": info.steps_per_day,
        "trait_sizes": info.trait_sizes,
        "mapper": dataset.mapper_spec,
        "sha256": info.sha256,
    }


def _fitted_forecaster(recipe: Recipe, field: Field, fit: bool = True) -> tuple[Forecaster, dict[str, Any]]:
    settings, graph = recipe.forecast, field.graph()
    for split in ("train", "valid"):  # long enough, or it says so
        field.windows(split, settings.history, settings.horizon)
    _, nodes, channels = field.info.shape
    _, places = slots(field, settings.season)
    model = assemble_forecaster(recipe, places, nodes, channels, None if graph is None else torch.from_numpy(graph))
    if fit:
        model.scaler.fit(field)
    return model, {
        "nodes": field.nodes["name"].astype(str).tolist(),
        "channels": list(field.info.channels),
        **identity(field),
    }


def _fitted_completer(recipe: Recipe, data: Trajectories) -> tuple[Completer, dict[str, Any]]:
    rows = data.mixed(data.rows("train"), np.random.default_rng(0))[:FITTED]
    if not len(rows):
        raise BadInput(f"trajectories {data.path} have none to train on; make them with other --shares")
    some = [data[int(row)][: recipe.complete.window] for row in rows]
    centre = [float(np.concatenate([getattr(t, axis) for t in some]).mean()) for axis in ("lat", "lon")]
    model = assemble_completer(recipe)
    origin = (centre[0], centre[1]) if recipe.complete.origin == "centre" else None
    model.tokenizer.fit(collate(some, [nothing_hidden(len(t)) for t in some], data.info.timezone, origin=origin))
    return model, {"centre": centre, **identity(data)}


def _try(model: Generator | Forecaster | Completer, recipe: Recipe, dataset: Data) -> None:
    """One pass of a fresh model: what would fail in training fails before anything is written."""
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            if isinstance(model, Generator) and isinstance(dataset, Dataset):
                tokens = model.tokenizer.encode(torch.zeros(1, dataset.info.steps, dtype=torch.long))
                model.loss(tokens, torch.zeros(1, len(recipe.traits), dtype=torch.long) if recipe.traits else None)
            elif isinstance(model, Forecaster) and isinstance(dataset, Field):
                settings = recipe.forecast
                slots = torch.zeros(1, settings.history + settings.horizon, dtype=torch.long)
                model(torch.zeros(1, settings.history, *dataset.info.shape[1:]), slots)
            elif isinstance(model, Completer) and isinstance(dataset, Trajectories):
                piece = dataset[int(dataset.rows("train")[0])][: recipe.complete.window]
                shown, patch = nothing_hidden(len(piece)), model.tokenizer.patch
                model.loss(collate([piece], [shown], dataset.info.timezone, multiple=patch), onward=True)
        except Exception as error:
            error.add_note("while the model was tried, before anything is written or trained")
            raise


def identity(data: Data) -> dict[str, Any]:
    """What must not change of data that a model was trained on; of a field where its splits end, too."""
    info = data.info
    if isinstance(info, Info | TrajectoriesInfo):
        return {"sha256": info.sha256}
    return {"sha256": info.sha256, "graph_sha256": info.graph_sha256, "start": info.start, "cuts": list(info.cuts)}


def _resolved(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A mapper by the name that its part has now."""
    return {**spec, "name": registry().find("mapper", spec["name"]).full_name}


def _describe(spec: Mapping[str, Any]) -> str:
    config = {k: v for k, v in spec["config"].items() if not (isinstance(v, list) and len(v) > 4)}
    return f"{spec['name']} {config}"


def find_recipe(recipe: Recipe | PathLike) -> Recipe:
    """A recipe by its registered name, from a TOML file, or as it is."""
    if isinstance(recipe, Recipe):
        return recipe
    if str(recipe).endswith(".toml"):
        if not Path(recipe).is_file():
            raise BadInput(f"recipe {recipe} is not a file")
        return Recipe.load(recipe)
    found: Recipe = load(registry().find("recipe", str(recipe)))
    return found


def fit_recipe(recipe: Recipe, dataset: Data, *, own_mapper: bool = False) -> Recipe:
    """A recipe with the mapper of its data.

    Args:
        recipe: for any data of its task.
        dataset: the data.
        own_mapper: the recipe's mapper was asked for, so it must be that of the data.

    Raises:
        BadInput: the data are not of the recipe's task, or have another mapper than was asked for.
    """
    kind: type = {"generate": Dataset, "forecast": Field, "complete": Trajectories}[recipe.task]
    if not isinstance(dataset, kind):
        what = {
            "generate": "sequences, such as mobtk data prepare makes",
            "forecast": "a field: see mobtk data field",
            "complete": "trajectories: see mobtk data trajectories",
        }
        raise BadInput(
            f"{dataset.path} holds something else than the recipe wants, which is to {recipe.task} and wants "
            f"{what[recipe.task]}"
        )
    if not isinstance(dataset, Dataset):
        return recipe
    wanted = registry().find("mapper", recipe.mapper.name).full_name
    if own_mapper and (wanted != _resolved(dataset.mapper_spec)["name"] or recipe.mapper.options):
        raise BadInput(
            f"dataset {dataset.path} was made with {_describe(dataset.mapper_spec)}; leave the mapper to the dataset, or "
            f"prepare it again with --mapper {recipe.mapper.name}"
        )
    options = dataset.info.settings.get("mapper_options") or {}
    return msgspec.structs.replace(recipe, mapper=Part(dataset.mapper_spec["name"], options))


def build(
    recipe: Recipe | PathLike = "default",
    out: PathLike = "run",
    *,
    data: PathLike | None = None,
    weeks: int = 10_000,
    changes: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Run:
    """Assemble a model from parts by name and write it as a run. ``mobtk build`` does the same.

    Args:
        recipe: name of a recipe, a TOML file, or a :class:`~mobtk.Recipe`.
        out: folder of the run.
        data: folder of a dataset; the built-in city if not given, and for points made-up walks.
        weeks: size of the built-in city, or number of walks.
        changes: settings to change, by dotted key, such as ``{"backbone": "mamba", "tokenizer.codes": 512}``.
        replace: replace an existing folder.

    Raises:
        PartMismatch, UnknownPart, BadInput: before anything is written.
    """
    for path in (out, data):
        if path is not None:
            loaded().add_beside(path)
    changed = find_recipe(recipe)
    for key, value in (changes or {}).items():
        changed = changed.change(key, value)
    dataset = open_dataset(data) if data is not None else None
    if dataset is not None:
        asked = any(key.split(".")[0] == "mapper" for key in changes or {})
        changed = fit_recipe(changed, dataset, own_mapper=asked)
    return Run.create(out, changed, dataset, weeks=weeks, replace=replace)


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Write all weights as safetensors, whole or not at all."""
    save_tensors(path, _without_aliases(model), {"mobtk": __version__})


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with new_file(path) as draft:
        try:
            save_file(dict(tensors), draft, metadata=dict(metadata))
        except SafetensorError as error:
            raise BadInput(f"cannot write {path}: {error}; free some space or choose another folder") from None


def find_device(device: str) -> torch.device:
    """``auto`` is a GPU where there is one, of the local rank under torchrun.

    Raises:
        BadInput: there is no such device here.
    """
    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
            raise RuntimeError
        return torch.empty(0, device=found).device
    except (RuntimeError, AssertionError):
        raise BadInput(f"device {device!r} is not on this machine; use auto, cpu or cuda") from None


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether matrix products are in bfloat16: ``auto`` where the processor multiplies it natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights.

    Raises:
        BadInput: the file is missing, or is not safetensors.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; train the run first, or build it again") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is not a safetensors file: {error}; mobtk reads no other kind of weights") from None


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Read weights into a model of the same recipe.

    Raises:
        BadInput: the file is missing, is not safetensors, or belongs to another model.
    """
    tensors = read_weights(path)
    expected = _without_aliases(model)
    wrong = sorted(set(tensors) ^ set(expected)) or [k for k, v in expected.items() if tensors[k].shape != v.shape]
    if wrong:
        raise BadInput(f"{path} holds the weights of another model (see {wrong[0]!r}); build a run for them")
    model.load_state_dict(tensors, strict=False)


def _without_aliases(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model, each shared tensor once (safetensors wants it so)."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            state[name] = tensor.contiguous()
    return state


def environment() -> dict[str, Any]:
    """Versions, machine and plugins, for the record."""
    from importlib.metadata import version

    return {
        "mobtk": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: version(name) for name in ("torch", "numpy", "h3", "geopandas", "pandas")},
        "plugins": {p.name: p.origin for p in loaded().plugins if not p.problem},
    }
