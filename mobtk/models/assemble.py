"""From a recipe to a model: the parts are checked against each other, then built."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from mobtk.contracts import CONTRACTS, Backbone, SpatialMapper, Tokenizer
from mobtk.errors import BadInput, MobtkError, PartMismatch
from mobtk.models.generator import Generator
from mobtk.models.moe import MixtureOfExperts
from mobtk.models.traits import TraitEmbedding
from mobtk.options import call
from mobtk.plugins import registry
from mobtk.recipe import Part, Recipe


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
    contract = CONTRACTS[kind]
    if not (inspect.isclass(part) and issubclass(part, contract)):
        raise MobtkError(f"{kind} {entry.full_name!r} ({entry.target}) is no mobtk.contracts.{contract.__name__}")
    return part


def check(recipe: Recipe) -> None:
    """Refuse parts that cannot go together, from what they declare, before anything is built.

    Raises:
        PartMismatch: with a sentence that says what does not fit and what would.
        UnknownPart, MobtkError: see :func:`load_part`.
    """
    mapper, tokenizer, router = (load_part(kind, getattr(recipe, kind).name) for kind in ("mapper", "tokenizer", "router"))
    load_part("backbone", recipe.backbone.name)
    if tokenizer.needs_levels and not mapper.nested:
        raise PartMismatch(
            f"tokenizer {recipe.tokenizer.name!r} wants a mapper with levels; {recipe.mapper.name!r} has one only. "
            f"Try: {_others('mapper', lambda m: m.nested)}"
        )
    if recipe.training.privacy.epsilon is not None and tokenizer.learns:
        raise PartMismatch(
            f"tokenizer {recipe.tokenizer.name!r} learns from the sequences before the generator does, which "
            f"training.privacy does not cover. Try: {_others('tokenizer', lambda t: not t.learns)}"
        )
    if recipe.experts > (router.max_experts or recipe.experts):
        raise PartMismatch(
            f"router {recipe.router.name!r} serves at most {router.max_experts} expert, the recipe has "
            f"{recipe.experts}. Try: {_others('router', lambda r: (r.max_experts or recipe.experts) >= recipe.experts)}"
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
        length = tokenizer.schedule.n_tokens
        if backbone.max_tokens is not None and length > backbone.max_tokens:
            raise PartMismatch(
                f"backbone {recipe.backbone.name!r} reads at most {backbone.max_tokens} tokens and tokenizer "
                f"{recipe.tokenizer.name!r} makes {length}. Try --set backbone.positions={length}"
            )
        sizes = {name: trait_sizes[name] for name in recipe.traits}
        traits = TraitEmbedding(mapper, sizes, recipe.width, table=recipe.trait_cells == "table") if sizes else None
        return Generator(tokenizer, backbone, traits)


def _backbone(recipe: Recipe) -> Backbone:
    experts: list[Backbone] = [build_part("backbone", recipe.backbone, recipe.width) for _ in range(recipe.experts)]
    router = build_part("router", recipe.router, recipe.experts, recipe.width)
    return experts[0] if recipe.experts == 1 else MixtureOfExperts(router, experts)
