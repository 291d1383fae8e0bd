"""Named questions: each is one command, and its answer is a verdict with the figures that it rests on.

An experiment is registered like a part (``registry.experiment``) and is an :class:`Experiment`. The experiments of a package
share a folder a size. What lies there is not trained twice, so an interrupted experiment goes on where it was, and two
that ask about the same run share it.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.completing import evaluate_completer
from mobtk.data.city import prepare_city
from mobtk.data.dataset import Dataset
from mobtk.data.field import Field
from mobtk.data.prepare_field import make_field
from mobtk.data.trajectories import Trajectories
from mobtk.data.walks import make_walks
from mobtk.errors import BadInput
from mobtk.evaluation import evaluate
from mobtk.forecasting import evaluate_forecaster
from mobtk.generation import generate, read_generated
from mobtk.plugins import registry
from mobtk.recipe import PARTS_OF_TASK, Recipe
from mobtk.runs import Data, Run, environment, identity
from mobtk.storage import PathLike, to_json, write_text
from mobtk.tables import aligned
from mobtk.training import train

log = logging.getLogger("mobtk")

SIZES = ("smoke", "cpu", "full")
"""Seconds, to see that it works; an hour or so on a processor; what the question deserves, on a GPU."""


class Outcome(Struct):
    """What an experiment found.

    Args:
        verdict: the answer, a sentence.
        holds: whether the claim holds; ``None`` where this size cannot tell.
        rows: the figures, a row a case.
    """

    verdict: str
    holds: bool | None
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """A question and how it is answered.

    Args:
        question: what is asked, a sentence.
        answer: from a lab to an outcome.
        sizes: settings of each of :data:`SIZES`; ``weeks`` is the size of the built-in city, and of an experiment on fields
            ``nodes`` how many of its cells they have, of one on points ``walks`` how many made-up ones there are.
        seeded: whether it trains each case with several seeds where that is asked for.
        several: whether it asks of more than one set of data.
    """

    question: str
    answer: "Callable[[Lab], Outcome]"
    sizes: Mapping[str, Mapping[str, Any]]
    seeded: bool = False
    several: bool = False


@dataclass
class Lab:
    """Where an experiment works: data, runs that are trained once, and what they score.

    Args:
        folder: for everything it makes.
        settings: of the size asked for.
        seeds: of trainings.
        data: a dataset; the built-in city if not given.
        others: more of them, for questions that want several.
        device: ``auto``, ``cpu`` or ``cuda``.

    Attributes:
        used: the data of the last run.
    """

    folder: Path
    settings: Mapping[str, Any]
    seeds: int = 1
    data: PathLike | None = None
    others: tuple[PathLike, ...] = ()
    device: str = "auto"
    _dataset: Dataset | None = field(default=None, repr=False)
    _field: Field | None = field(default=None, repr=False)
    used: Data | None = field(default=None, repr=False)

    def dataset(self) -> Dataset:
        """What generators learn and are judged by."""
        if self._dataset is None:
            self._dataset = Dataset(self.data) if self.data is not None else self.city()
        return self._dataset

    def field(self) -> Field:
        """What forecasters learn and are judged by: how many people are in the busiest cells of the city, if not given."""
        if self._field is None:
            here = self.folder / f"flows-{self.settings['weeks']}-{self.settings['nodes']}"
            if self.data is not None or here.exists():
                self._field = Field(self.data if self.data is not None else here)
            else:
                most = self.settings["nodes"]
                self._field = make_field(self.city().path, here, most=most, graph="nearest", neighbours=min(8, most - 1))
        return self._field

    def trajectories(self) -> Trajectories:
        """What completers learn and are judged by: made-up walks, if not given."""
        here = self.folder / f"walks-{self.settings['walks']}"
        if self.data is not None or here.exists():
            found = Trajectories(self.data if self.data is not None else here)
        else:
            found = make_walks(here, n=self.settings["walks"])
        self.used = found
        return found

    def city(self, mapper: str = "grid", **options: Any) -> Dataset:
        """The built-in city on some mapper, made once."""
        name = "-".join(str(part) for part in ("city", self.settings["weeks"], mapper, *options.values()))
        here = self.folder / name
        if here.exists():
            return Dataset(here)
        return prepare_city(here, weeks=self.settings["weeks"], mapper=mapper, mapper_options=options)

    def run(
        self,
        name: str,
        recipe: Recipe,
        seed: int = 0,
        *,
        until: str | None = None,
        data: Data | None = None,
        start: Run | None = None,
    ) -> Run:
        """A trained run of a recipe for the data of its task or for others, found again if it is there; where it begins with
        the weights of another run, its name says so.

        Raises:
            BadInput: the folder holds a run of another recipe.
        """
        recipe = recipe.change("training.seed", seed)
        path = self.folder / f"{name}-{seed}"
        own: dict[str, Callable[[], Data]] = {
            "generate": self.dataset, "forecast": self.field, "complete": self.trajectories
        }  # fmt: skip
        data = data or own[recipe.task]()
        self.used = data
        if not path.exists():
            Run.create(path, recipe, data)
        run = Run(path)
        fresh = msgspec.to_builtins(recipe) | {"mapper": None}
        for kind in set(PARTS_OF_TASK[recipe.task]) - {"mapper"}:  # which the data impose
            fresh[kind]["name"] = registry().find(kind, fresh[kind]["name"]).full_name
        if msgspec.to_builtins(run.recipe) | {"mapper": None} != fresh:
            raise BadInput(f"{path} holds a run of another recipe; give the experiment another folder with -o")
        if any(run.data[key] != value for key, value in identity(data).items()):
            raise BadInput(f"{path} holds a run for other data; give the experiment another folder with -o")
        begun = (path / "state" / "state.safetensors").exists()
        return train(run, resume=begun, until=until, start=None if begun else start, device=self.device)

    def completions(self, run: Run, masks: Sequence[str], **options: Any) -> dict[str, Any]:
        """How well a completer tells what masks hide of the test split; see :func:`mobtk.evaluate_completer`."""
        return evaluate_completer(run, masks=masks, device=self.device, **options)

    def errors(self, run: Run, *, baselines: bool = False) -> dict[str, dict[str, float]]:
        """Errors of a forecaster (``model``) and of the baselines on the test split."""
        scores: dict[str, dict[str, float]] = evaluate_forecaster(run, baselines=baselines, device=self.device)["scores"]
        return scores

    def generated(self, run: Run, n: int | None = None, *, name: str = "generated", **sampling: Any) -> NDArray[np.int64]:
        """``(n, T)`` cells that a run generates; as many as half of the test split by default."""
        file = run.path / f"{name}.parquet"
        if not file.exists():
            generate(run, n or len(self.dataset().rows("test")) // 2, file, device=self.device, resume=True, **sampling)
        return read_generated(file, self.dataset()).astype(np.int64)

    def scores(
        self, run: Run, *, name: str = "generated", baselines: bool = False, **sampling: Any
    ) -> dict[str, dict[str, float]]:
        """Mean score of each source (``model``, ``floor``, baselines) in each metric."""
        self.generated(run, name=name, **sampling)
        result = evaluate(run, run.path / f"{name}.parquet", baselines=baselines)["scores"]
        return {source: {k: v["mean"] for k, v in scores.items()} for source, scores in result.items()}


def find(name: str) -> tuple[str, Experiment]:
    """The full name of an experiment, ``package/name``, and the experiment."""
    entry = registry().find("experiment", name.replace("/", "."))
    found = entry.load()
    if not isinstance(found, Experiment):
        raise BadInput(f"experiment {name!r} ({entry.target}) is no mobtk.experiments.Experiment")
    return f"{entry.package}/{entry.name}", found


def run_experiment(
    name: str,
    *,
    size: str = "cpu",
    out: PathLike = "experiments",
    seeds: int = 1,
    data: PathLike | Sequence[PathLike] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Answer a question. ``mobtk experiment run`` does the same.

    Args:
        name: of the experiment, such as ``mstar/reconstruction``.
        size: ``smoke``, ``cpu`` or ``full``.
        out: folder; in it ``package/size`` is that of the experiment, and its result is ``name.json`` there.
        seeds: trainings of each case.
        data: a dataset, or several for a question that wants them; the built-in city if not given.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    full_name, experiment = find(name)
    if size not in SIZES:
        raise BadInput(f"size {size!r} is not one of {', '.join(SIZES)}")
    if seeds < 1:
        raise BadInput(f"seeds is at least 1, not {seeds}")
    if seeds > 1 and not experiment.seeded:
        raise BadInput(f"experiment {full_name} trains each case once; leave --seeds out")
    given: list[PathLike] = [] if data is None else [data] if isinstance(data, str | os.PathLike) else list(data)
    if len(given) > 1 and not experiment.several:
        raise BadInput(f"experiment {full_name} asks of one set of data, not of {len(given)}")
    package, name = full_name.split("/")
    folder = Path(out) / package / size
    lab = Lab(folder, experiment.sizes[size], seeds, given[0] if given else None, tuple(given[1:]), device)
    started = time.perf_counter()
    outcome = experiment.answer(lab)
    data_used = lab.used or lab.dataset()
    rows = list(data_used.info.cuts) if isinstance(data_used, Field) else data_used.info.split
    result = {
        "experiment": full_name,
        "question": experiment.question,
        "size": size,
        "settings": dict(lab.settings),
        "seeds": seeds,
        "data": [Path(path).name for path in given],
        "dataset": {"name": data_used.info.name, "fingerprint": data_used.fingerprint, "rows": rows},
        **msgspec.to_builtins(outcome),
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment(),
    }
    write_text(folder / f"{name}.json", to_json(result))
    return result


def stored(name: str, *, size: str | None = None, out: PathLike = "experiments") -> dict[str, Any]:
    """The answer that was found before. ``mobtk experiment show`` does the same.

    Args:
        name: of the experiment.
        size: of the answer; the largest there is, if not given.
        out: folder that :func:`run_experiment` was given.

    Raises:
        BadInput: it was not answered there.
    """
    full_name, _ = find(name)
    package, name = full_name.split("/")
    for which in reversed(SIZES) if size is None else [size]:
        file = Path(out) / package / which / f"{name}.json"
        if file.is_file():
            result: dict[str, Any] = msgspec.json.decode(file.read_bytes())
            return result
    at = "" if size is None else f" at size {size}"
    raise BadInput(f"{full_name} was not answered{at} in {out}; mobtk experiment run {full_name} -o {out}")


def command(result: Mapping[str, Any]) -> str:
    """What was typed to get a result; data of its own by their name."""
    words = ["mobtk experiment run", result["experiment"], "--size", result["size"]]
    words += ["--seeds", str(result["seeds"])] if result["seeds"] > 1 else []
    return " ".join(words + [f"--data {name}" for name in result.get("data", [])])


def table(result: Mapping[str, Any]) -> str:
    """A result as text: the question, a row a case, the verdict."""
    rows = result["rows"]
    names = list(dict.fromkeys(key for row in rows for key in row))
    shown = [names, *([_plain(row.get(name)) for name in names] for row in rows)]
    lines = aligned(shown)
    answer = {True: "holds", False: "does not hold", None: "cannot be told at this size"}[result["holds"]]
    return "\n".join([result["question"], "", *lines, "", f"{answer}: {result['verdict']}"])


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
