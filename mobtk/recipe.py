"""A recipe: the parts of one model, their options and how it is trained. Plain data, TOML on disk."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli_w
from msgspec import Meta, Struct, field

from mobtk.errors import BadInput

Positive = Annotated[int, Meta(gt=0)]
Rate = Annotated[float, Meta(gt=0)]


class Part(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A part by name, with options of its constructor."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


class Stage(Struct, forbid_unknown_fields=True):
    """How one stage is trained.

    Args:
        epochs: passes over the training split at most; with a fraction, the last one ends early. The rows that do not
            fill a batch are left out of a pass, other ones each time.
        batch: sequences a step, over all ranks and accumulated micro-batches together.
        accumulate: micro-batches a step is split into, to need less memory for the same result (the averages of a codec
            move with each, and those of a forecaster's error weigh alike, however much of each was measured).
        lr: peak learning rate of AdamW; rises over the first ``warmup`` share of the steps, then falls by half a
            cosine to a tenth.
        weight_decay: of matrices; vectors have none.
        clip: largest norm of the gradient.
        patience: epochs without a better validation figure after which training stops.
    """

    epochs: Annotated[float, Meta(gt=0, le=1_000_000)] = 30
    batch: Positive = 64
    accumulate: Positive = 1
    lr: Rate = 1e-3
    warmup: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    clip: Rate = 1.0
    patience: Positive = 5


class Privacy(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Differential privacy of the weights, for each person of the training split (:mod:`mobtk.privacy`).

    Args:
        epsilon: the bound; without one, training is not private. There is no choice of the best epoch then: the last
            weights are kept.
        delta: chance that the bound does not hold; well below one in the number of people.
        clip: largest norm of the gradient of one person.
    """

    epsilon: Rate | None = None
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    clip: Rate = 1.0


class Training(Struct, forbid_unknown_fields=True):
    """The stages, the seed of everything random, and the number format of matrix products.

    ``precision`` is ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor multiplies it natively.
    """

    seed: Annotated[int, Meta(ge=0)] = 0
    precision: Annotated[str, Meta(pattern="^(auto|float32|bfloat16)$")] = "auto"
    tokenizer: Stage = field(default_factory=Stage)
    generator: Stage = field(default_factory=Stage)
    forecaster: Stage = field(default_factory=Stage)
    completer: Stage = field(default_factory=Stage)
    privacy: Privacy = field(default_factory=Privacy)


class Sampling(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How tokens are drawn where a generation does not say otherwise; see :func:`mobtk.generate`."""

    temperature: Annotated[float, Meta(ge=0)] = 1.0
    top_k: Positive | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    coupling: Annotated[int, Meta(ge=0)] | None = None


class Forecast(Struct, forbid_unknown_fields=True):
    """What a forecaster reads and foretells, and how values are scaled.

    Args:
        history: ``T``, steps it reads.
        horizon: ``H``, steps it foretells.
        layers: pairs of a mixer and a backbone.
        entity: ``S``, width of the learned embedding of a node.
        scale: values have mean 0 and standard deviation 1 over the training split: of each ``node``, or of the ``field``.
        season: from which mean they are measured: of all steps (``none``), or of those at the same step of the ``day`` or
            of the ``week``.
        window: what is besides subtracted from a window and added to its forecast: nothing (``none``), its ``last`` value,
            or its ``mean``, and then it is divided by its standard deviation, too.
        loss: the mean error of ``scaled`` values or of ``real`` ones.
        error: ``absolute``, which makes a forecast the median; ``squared``, the mean; or ``huber``, squared up to 1.
    """

    history: Positive = 96
    horizon: Positive = 96
    layers: Positive = 1
    entity: Positive = 12
    scale: Annotated[str, Meta(pattern="^(node|field)$")] = "node"
    season: Annotated[str, Meta(pattern="^(none|day|week)$")] = "none"
    window: Annotated[str, Meta(pattern="^(none|last|mean)$")] = "none"
    loss: Annotated[str, Meta(pattern="^(scaled|real)$")] = "scaled"
    error: Annotated[str, Meta(pattern="^(absolute|squared|huber)$")] = "absolute"


class WeightedMask(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A mask by name, with options of its constructor and how often it is drawn beside others."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    weight: Rate = 1.0


class Complete(Struct, forbid_unknown_fields=True):
    """What a completer is asked while it learns.

    Args:
        window: points of a trajectory that it reads; of a longer one it learns such a piece in each pass.
        onward: share of the batches that it learns step by step; the others it learns at once, with what masks hide.
        untimed: share of the trajectories learned step by step of which moments are hidden, too, from some point on.
        masks: one of them is drawn for each trajectory that is learned at once.
        turned: whether it learns each walk turned by some angle, and half of them in a mirror.
        origin: places are measured from the ``first`` point of each trajectory, or from the ``centre`` of the data.
    """

    window: Annotated[int, Meta(ge=4)] = 128
    onward: Annotated[float, Meta(ge=0, le=1)] = 1.0
    untimed: Annotated[float, Meta(ge=0, le=1)] = 0.25
    masks: tuple[WeightedMask, ...] = ()
    turned: bool = True
    origin: Annotated[str, Meta(pattern="^(first|centre)$")] = "first"


class Recipe(Struct, forbid_unknown_fields=True):
    """The parts of one model.

    Args:
        task: ``generate`` (sequences of places), ``forecast`` (a field) or ``complete`` (trajectories of points). What
            belongs to another task is left out of the TOML and may not be changed.
        width: ``D``, the width of backbone, inputs and condition.
        mixer: mixes over the nodes of a field.
        experts: backbones the router chooses among; 1 needs no router.
        shared: whether a backbone serves everything besides the experts.
        forecast: what a forecaster reads and foretells.
        complete: what a completer is asked.
        traits: what is known of a person before generation, as columns of the dataset.
        trait_cells: how home and work are read: by their ``place`` on the map, or from a ``table`` with a vector a cell.
        source: the paper, or what it was made from.
    """

    task: Annotated[str, Meta(pattern="^(generate|forecast|complete)$")] = "generate"
    source: str = ""
    width: Positive = 128
    mapper: Part = field(default_factory=lambda: Part("grid"))
    tokenizer: Part = field(default_factory=lambda: Part("rvq"))
    backbone: Part = field(default_factory=lambda: Part("transformer"))
    mixer: Part = field(default_factory=lambda: Part("none"))
    router: Part = field(default_factory=lambda: Part("none"))
    experts: Positive = 1
    shared: bool = False
    forecast: Forecast = field(default_factory=Forecast)
    complete: Complete = field(default_factory=Complete)
    traits: tuple[str, ...] = ("home", "work", "cluster")
    trait_cells: Annotated[str, Meta(pattern="^(place|table)$")] = "place"
    sampling: Sampling = field(default_factory=Sampling)
    training: Training = field(default_factory=Training)

    def parts(self) -> "list[Part | WeightedMask]":
        """All that its task is made of, masks included."""
        return [*(getattr(self, kind) for kind in PARTS_OF_TASK[self.task]), *self.complete.masks]

    def change(self, key: str, value: Any) -> "Recipe":
        """A copy with one setting changed, by a dotted key such as ``training.generator.epochs``.

        ``tokenizer.codes`` is short for ``tokenizer.options.codes``; a part's name (``backbone = "mamba"``)
        replaces the part and its options.

        Raises:
            BadInput: there is no such setting, or the value does not fit it.
        """
        tree = msgspec.to_builtins(self)
        for other in OTHER_TASK[self.task]:
            if (key + ".").startswith(other + "."):
                raise BadInput(f"setting {key!r} is not of the task of this recipe, which is to {self.task}")
        *path, last = key.split(".")
        if path and path[0] in PARTS and (path[1:] or last) not in ("name", "options", ["options"]):
            path = [path[0], "options", *path[1:]]
        node = tree
        for step in path:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise BadInput(f"setting {key!r}: {step!r} is a value and has no settings of its own")
        if not path and last in PARTS and isinstance(value, str):
            value = {"name": value}
        node[last] = value
        return _convert(tree, f"setting {key!r}")

    def dumps(self) -> str:
        """The recipe as TOML."""
        tree = msgspec.to_builtins(self)
        for other in OTHER_TASK[self.task]:
            *path, last = other.split(".")
            node = tree
            for step in path:
                node = node[step]
            del node[last]
        return tomli_w.dumps(tree)

    @classmethod
    def loads(cls, text: str, origin: str = "recipe") -> "Recipe":
        """A recipe from TOML.

        Raises:
            BadInput: it is no TOML, or has settings that are unknown or out of range.
        """
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"{origin} is not valid TOML: {error}") from None
        found = _convert(tree, origin)
        for other in OTHER_TASK[found.task]:
            node: Any = tree
            for step in other.split("."):
                node = node.get(step) if isinstance(node, dict) else None
            if node is not None:
                raise BadInput(f"{origin}: setting {other!r} is not of its task, which is to {found.task}")
        return found

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipe":
        """A recipe from a TOML file."""
        try:
            return cls.loads(Path(path).read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not text in UTF-8: {error.reason}") from None


PARTS = ("mapper", "tokenizer", "mixer", "backbone", "router")

PARTS_OF_TASK = {
    "generate": ("mapper", "tokenizer", "backbone", "router"),
    "forecast": ("tokenizer", "mixer", "backbone", "router"),
    "complete": ("tokenizer", "backbone"),
}

OF_GENERATOR = (
    "mapper", "traits", "trait_cells", "sampling", "training.tokenizer", "training.generator", "training.privacy"
)  # fmt: skip

OTHER_TASK = {
    "generate": ("mixer", "shared", "forecast", "complete", "training.forecaster", "training.completer"),
    "forecast": (*OF_GENERATOR, "complete", "training.completer"),
    "complete": (*OF_GENERATOR, "router", "experts", "mixer", "shared", "forecast", "training.forecaster"),
}
"""Settings that a recipe of a task does not have."""


def _convert(tree: Any, origin: str) -> Recipe:
    try:
        return msgspec.convert(tree, Recipe)
    except msgspec.ValidationError as error:
        raise BadInput(f"{origin}: {error}") from None


SPARSE_CODES = {"pool": "medoid", "up": "nearest", "rate": 0.02}
"""Options of ``rvq`` that leave most of the fine tokens with nothing to say, so that they are easy to foretell."""

DEFAULT = Recipe(
    source="M-STAR's shape (Luo et al. 2025, https://arxiv.org/abs/2512.07314) with mobtk's parts",
    tokenizer=Part("rvq", SPARSE_CODES),
    training=Training(tokenizer=Stage(epochs=10, batch=32), generator=Stage(epochs=40, batch=32, lr=2e-3)),
)
AUTOREGRESSIVE = Recipe(
    source="GPT-2 over cells, step by step (Radford et al. 2019)",
    tokenizer=Part("cells"),
    backbone=Part("gpt2"),
    training=Training(generator=Stage(epochs=40, batch=32, lr=1e-3)),
)
MASKED = Recipe(
    source="cells in eight passes, each amid those before (masked generation, Chang et al. 2022)",
    tokenizer=Part("cells", {"passes": 8}),
    training=Training(generator=Stage(epochs=40, batch=32, lr=1e-3)),
)
DEMO = Recipe(
    source="the default, sized for a few minutes on two cores",
    width=64,
    tokenizer=Part(
        "rvq", {"lengths": [1, 7, 168], "turns": 24, "lag": 2, "codes": 256, "code_width": 2, "depth": 0, **SPARSE_CODES}
    ),
    backbone=Part("transformer", {"depth": 2, "heads": 2}),
    training=Training(
        precision="float32",
        tokenizer=Stage(epochs=0.2, batch=16),
        generator=Stage(epochs=1, batch=16, lr=5e-3),
    ),
    sampling=Sampling(top_p=0.99),
)
FORECASTER = Recipe(
    task="forecast",
    source="patches of each node through a transformer, after PatchTST (Nie et al. 2023, https://arxiv.org/abs/2211.14730)",
    width=32,
    tokenizer=Part("patches", {"length": 8}),
    backbone=Part("transformer", {"depth": 2, "heads": 4, "dropout": 0.2}),
    forecast=Forecast(window="mean"),
    training=Training(precision="float32", forecaster=Stage(epochs=10, batch=32, lr=1e-3, patience=3)),
)
COMPLETER = Recipe(
    task="complete",
    source="points step by step and at once, through a transformer",
    width=64,
    tokenizer=Part("points"),
    backbone=Part("transformer", {"depth": 2, "heads": 4}),
    complete=Complete(
        onward=0.5,
        masks=tuple(WeightedMask(name) for name in ("random", "block", "last", "keep-every", "travel-time")),
    ),
    training=Training(precision="float32", completer=Stage(epochs=30, batch=64, lr=2e-3)),
)
TINY = Recipe(
    source="the default, for tests and tries: seconds on one core, and nothing to be proud of",
    width=16,
    tokenizer=Part("rvq", {"lengths": [1, 7, 28], "codes": 64, "code_width": 2, "depth": 0, **SPARSE_CODES}),
    backbone=Part("transformer", {"depth": 1, "heads": 2}),
    training=Training(
        precision="float32",
        tokenizer=Stage(epochs=2, batch=32, lr=1e-2),
        generator=Stage(epochs=2, batch=32, lr=1e-2),
    ),
)
