"""From a recipe to a model: the parts are checked against each other, then built."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mobtk.contracts import CONTRACTS, Backbone, FieldTokenizer, Mask, Mixer, PointTokenizer, SpatialMapper, Tokenizer
from mobtk.errors import BadInput, MobtkError, PartMismatch
from mobtk.models.completer import Completer
from mobtk.models.forecaster import Forecaster
from mobtk.models.generator import Generator
from mobtk.models.moe import MixtureOfExperts
from mobtk.models.scaling import Scaler
from mobtk.models.traits import TraitEmbedding
from mobtk.options import call
from mobtk.plugins import registry
from mobtk.recipe import PARTS_OF_TASK, Part, Recipe


def load_part(kind: str, name: str) -> Any:
    """The class of a part.

    Raises:
        UnknownPart: nothing is registered under the name.
        MobtkError: what is registered does not sign the contract of its kind.
    """
    entry = registry().find(kind, name)
    try:
        part = entry.load()
    except Exception as error:  # a plugin may raise anything
        raise MobtkError(f"{kind} {entry.full_name!r} does not load: {type(error).__name__}: {error}") from error
    contracts = CONTRACTS[kind]
    if not (inspect.isclass(part) and issubclass(part, contracts)):
        names = " or ".join(f"mobtk.contracts.{c.__name__}" for c in contracts)
        raise MobtkError(f"{kind} {entry.full_name!r} ({entry.target}) is no {names}")
    if inspect.isabstract(part):
        missing = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
        raise MobtkError(f"{kind} {entry.full_name!r} ({entry.target}) lacks {missing}, which its contract asks for")
    return part


def check(recipe: Recipe) -> None:
    """Refuse parts that cannot go together, from what they declare, before anything is built.

    Raises:
        PartMismatch: with a sentence that says what does not fit and what would.
        UnknownPart, MobtkError: see :func:`load_part`.
    """
    parts = {kind: load_part(kind, getattr(recipe, kind).name) for kind in PARTS_OF_TASK[recipe.task]}
    wanted, reads = READS[recipe.task]
    if not issubclass(parts["tokenizer"], wanted):
        raise PartMismatch(
            f"tokenizer {recipe.tokenizer.name!r} does not read {reads}. "
            f"Try: {_others('tokenizer', lambda t: issubclass(t, wanted))}"
        )
    if recipe.task == "complete":
        _check_completer(recipe, parts["backbone"])
        return
    if recipe.experts > (parts["router"].max_experts or recipe.experts):
        raise PartMismatch(
            f"router {recipe.router.name!r} serves at most {parts['router'].max_experts} expert, the recipe has "
            f"{recipe.experts}. Try: {_others('router', lambda r: (r.max_experts or recipe.experts) >= recipe.experts)}"
        )
    if recipe.task == "generate":
        _check_generator(recipe, parts["mapper"], parts["tokenizer"])


READS: Mapping[str, tuple[type, str]] = {
    "generate": (Tokenizer, "sequences of places, which are generated"),
    "forecast": (FieldTokenizer, "a field, which is forecast"),
    "complete": (PointTokenizer, "points, which are completed"),
}
"""The tokenizers of each task."""


def _check_completer(recipe: Recipe, backbone: type[Backbone]) -> None:
    settings = recipe.complete
    for mask in settings.masks:
        load_part("mask", mask.name)
    if settings.onward < 1 and not settings.masks:
        raise PartMismatch(
            "a completer that learns at once, too, wants masks that hide something: name some in complete.masks, or "
            "--set complete.onward=1"
        )
    if settings.onward < 1 and not backbone.takes_rows:
        raise PartMismatch(
            f"backbone {recipe.backbone.name!r} knows nothing of padding, which trajectories of unequal length want at "
            f"once. Try: {_others('backbone', lambda b: b.takes_rows)}; or --set complete.onward=1"
        )


def _check_generator(recipe: Recipe, mapper: type[SpatialMapper], tokenizer: type[Tokenizer]) -> None:
    if tokenizer.needs_levels and not mapper.nested:
        raise PartMismatch(
            f"tokenizer {recipe.tokenizer.name!r} wants a mapper with levels; {recipe.mapper.name!r} has one only. "
            f"Try: {_others('mapper', lambda m: m.nested)}"
        )
    if recipe.training.privacy.epsilon is not None and tokenizer.learns:
        raise PartMismatch(
            f"tokenizer {recipe.tokenizer.name!r} learns from the sequences before the generator does, which "
            "training.privacy does not cover. Try: "
            f"{_others('tokenizer', lambda t: issubclass(t, Tokenizer) and not t.learns)}"
        )
    if recipe.experts > 1 and not recipe.traits:
        raise PartMismatch(
            f"router {recipe.router.name!r} chooses among {recipe.experts} experts by what is known when a sequence begins, "
            "its traits, and the recipe has none. Name some with --traits, or use one expert"
        )


def _others(kind: str, fits: Callable[[Any], bool]) -> str:
    found = []
    for entry in registry().entries(kind):
        with suppress(MobtkError):  # a broken part is no reason not to name the others
            if fits(load_part(kind, entry.full_name)):
                found.append(entry.name)
    return ", ".join(found) or "none installed"


def build_part(kind: str, part: Part, *imposed: Any) -> Any:
    """An instance of a part.

    Raises:
        BadInput: see :func:`mobtk.options.call`.
    """
    name = registry().find(kind, part.name).name
    return call(f"{kind} {name!r}", load_part(kind, part.name), imposed, part.options)


def assemble(recipe: Recipe, mapper: SpatialMapper, steps: int, trait_sizes: Mapping[str, int]) -> Generator:
    """The model of a recipe, with fresh weights drawn from ``recipe.training.seed``.

    Args:
        recipe: names the parts.
        mapper: of the dataset.
        steps: ``T``.
        trait_sizes: number of values of each trait of the dataset.

    Raises:
        PartMismatch, BadInput: the parts do not fit each other or the data.
    """
    check(recipe)
    if len(mapper.n_cells) < 2 and load_part("tokenizer", recipe.tokenizer.name).needs_levels:
        raise PartMismatch(
            f"tokenizer {recipe.tokenizer.name!r} wants cells with coarser levels, and those of the data have none; prepare "
            "them with levels, such as --set levels=3 or, for polygons, --set levels=COLUMN"
        )
    for name in recipe.traits:
        if name not in trait_sizes:
            raise BadInput(f"the data have no trait {name!r}; they have {', '.join(trait_sizes) or 'none'}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        tokenizer: Tokenizer = build_part("tokenizer", recipe.tokenizer, mapper, steps, recipe.width)
        backbone = _backbone(recipe)
        _check_backbone(recipe, backbone, tokenizer.schedule.n_tokens)
        sizes = {name: trait_sizes[name] for name in recipe.traits}
        traits = TraitEmbedding(mapper, sizes, recipe.width, table=recipe.trait_cells == "table") if sizes else None
        return Generator(tokenizer, backbone, traits)


def assemble_forecaster(
    recipe: Recipe, slots: int, nodes: int, channels: int, graph: Float[Tensor, "N N"] | None
) -> Forecaster:
    """The forecaster of a recipe, with fresh weights drawn from ``recipe.training.seed`` and values not yet measured.

    Args:
        recipe: names the parts.
        slots: steps of the season; see :func:`mobtk.models.scaling.slots`.
        nodes: ``N``.
        channels: ``C``.
        graph: weights of the edges, where the field has a graph.

    Raises:
        PartMismatch, BadInput: the parts do not fit each other or the field.
    """
    check(recipe)
    settings = recipe.forecast
    if graph is None and load_part("mixer", recipe.mixer.name).needs_graph:
        raise PartMismatch(
            f"mixer {recipe.mixer.name!r} wants a graph of the nodes, and the field has none; make it with --graph, or "
            f"try: {_others('mixer', lambda m: not m.needs_graph)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        tokenizer: FieldTokenizer = build_part("tokenizer", recipe.tokenizer, settings.history, channels, recipe.width)
        q = tokenizer.scales
        if load_part("backbone", recipe.backbone.name).takes_scales and "scales" not in recipe.backbone.options:
            recipe = recipe.change("backbone.scales", q)
        layers: list[tuple[Mixer, Backbone]] = []
        for _ in range(settings.layers):
            mixer = build_part("mixer", recipe.mixer, graph, recipe.width // q, q, settings.entity)
            layers.append((mixer, _backbone(recipe, settings.entity)))
        _check_backbone(recipe, layers[0][1], tokenizer.schedule.n_tokens)
        return Forecaster(
            tokenizer,
            layers,
            Scaler(settings, slots, nodes, channels),
            settings.horizon,
            nodes,
            channels,
            recipe.width,
            settings.entity,
            real_loss=settings.loss == "real",
            error=settings.error,
        )


def assemble_completer(recipe: Recipe) -> Completer:
    """The completer of a recipe, with fresh weights drawn from ``recipe.training.seed`` and units not yet measured.

    Raises:
        PartMismatch, BadInput: the parts do not fit each other.
    """
    check(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        tokenizer: PointTokenizer = build_part("tokenizer", recipe.tokenizer, recipe.width)
        backbone: Backbone = build_part("backbone", recipe.backbone, recipe.width)
        _check_length(recipe, backbone, -(-recipe.complete.window // tokenizer.patch))
        if 2 * tokenizer.patch > recipe.complete.window:
            raise PartMismatch(
                f"patches of {tokenizer.patch} points want a window of two of them at least, and it has "
                f"{recipe.complete.window} points. Try --set complete.window={4 * tokenizer.patch}"
            )
        return Completer(tokenizer, backbone)


def build_masks(recipe: Recipe) -> tuple[list[Mask], list[float]]:
    """The masks a completer learns with, and how likely each is to be drawn."""
    masks = [build_part("mask", Part(m.name, m.options)) for m in recipe.complete.masks]
    whole = sum(m.weight for m in recipe.complete.masks)
    return masks, [m.weight / whole for m in recipe.complete.masks]


def _check_backbone(recipe: Recipe, backbone: Backbone, length: int) -> None:
    if backbone.needs_rows:
        raise PartMismatch(
            f"backbone {recipe.backbone.name!r} with these positions reads the moment or place of each token, which "
            f"tokenizer {recipe.tokenizer.name!r} does not tell. Try --set backbone.positions=rotary"
        )
    _check_length(recipe, backbone, length)


def _check_length(recipe: Recipe, backbone: Backbone, length: int) -> None:
    if backbone.max_tokens is not None and length > backbone.max_tokens:
        raise PartMismatch(
            f"backbone {recipe.backbone.name!r} reads at most {backbone.max_tokens} tokens and tokenizer "
            f"{recipe.tokenizer.name!r} makes {length}. Try --set backbone.longest={length}"
        )


def _backbone(recipe: Recipe, entity: int | None = None) -> Backbone:
    """The backbone of a recipe or a mixture of several, which are chosen by an ``entity`` of this width."""
    experts: list[Backbone] = [build_part("backbone", recipe.backbone, recipe.width) for _ in range(recipe.experts)]
    if recipe.experts == 1 and not recipe.shared:
        return experts[0]
    routed = load_part("router", recipe.router.name).needs_entity
    width = entity if entity is not None and routed else recipe.width
    router = build_part("router", recipe.router, recipe.experts, width)
    if not recipe.shared:
        return MixtureOfExperts(router, experts)
    gate = None if entity is None else nn.Linear(entity, 1, bias=False)
    return MixtureOfExperts(router, experts, build_part("backbone", recipe.backbone, recipe.width), gate)
