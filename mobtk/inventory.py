"""What is installed, where it lives, what may be chosen of it, and what is wrong with it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import docstring_parser
from msgspec import Struct, field

from mobtk.contracts import CONTRACTS, SpatialMapper
from mobtk.errors import BadInput, MobtkError
from mobtk.models.assemble import check, load_part
from mobtk.plugins import Plugin, loaded, own_trace, registry
from mobtk.recipe import Recipe
from mobtk.registry import BUILT_IN, Entry


class Option(Struct):
    """One thing that may be chosen of a part.

    Args:
        name: as in ``--set backbone.NAME=...``.
        type: as annotated.
        default: as Python would write it.
        meaning: from the docstring.
    """

    name: str
    type: str
    default: str
    meaning: str


class Description(Struct):
    """A part, recipe or experiment in full.

    Args:
        kind, name, summary: as registered.
        plugin: the distribution and its version, or the file, by which it came.
        licence: of the plugin.
        target: ``module:object``.
        place: file and line of its definition.
        doc: its docstring without the options.
        contract: the contract that a part signs.
        built: how it is called.
        options: what may be chosen.
        declares: what a part declares, by name.
        recipe: a recipe, as TOML.
        problem: why it does not load, where it does not.
    """

    kind: str
    name: str
    summary: str
    plugin: str
    licence: str
    target: str
    place: str = ""
    doc: str = ""
    contract: str = ""
    built: str = ""
    options: list[Option] = field(default_factory=list)
    declares: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    problem: str = ""


class Fault(Struct):
    """Something about a plugin or a part.

    Args:
        what: the plugin or part.
        problem: what is wrong.
        trace: the stack in its own code, where there is one.
        serious: whether it keeps something from working.
    """

    what: str
    problem: str
    trace: str = ""
    serious: bool = True


def describe(name: str) -> list[Description]:
    """All parts, recipes and experiments of a plugin, or those of a short or full name, whatever kind they are.

    Raises:
        BadInput: nothing is called so, or what is does not load.
    """
    found = [e for e in registry() if e.package == name] or [e for e in registry() if name in (e.name, e.full_name)]
    if not found:
        skipped = next((p for p in loaded().plugins if p.name == name and p.problem), None)
        if skipped:
            raise BadInput(f"plugin {name!r} ({skipped.origin}) was skipped: {skipped.problem}")
        plugins = ", ".join(p.name for p in loaded().plugins if not p.problem)
        raise BadInput(f"no plugin or part is called {name!r}; plugins are {plugins}, and mobtk parts lists the parts")
    return [_description(e) for e in found]


def _description(entry: Entry) -> Description:
    plugin = next(p for p in loaded().plugins if p.name == entry.package and p.problem is None)
    found = Description(entry.kind, entry.full_name, entry.summary, plugin.origin, plugin.licence, entry.target)
    try:
        thing = load(entry)
    except MobtkError as error:
        found.problem = str(error)
        return found
    if isinstance(thing, Recipe):
        found.doc, found.recipe = thing.source, thing.dumps()
    elif hasattr(thing, "question"):
        found.doc = thing.question
    if not inspect.isclass(thing):
        found.place = entry.target.partition(":")[0]
        return found
    found.place = place(thing)
    makers: list[Any] = [thing]
    if issubclass(thing, SpatialMapper):
        makers = [thing.fit, thing]  # it is fitted to data, and built again from its config
    found.doc = docstring_parser.parse(inspect.getdoc(thing) or "").description or ""
    found.options = _options(makers)
    contract = next(c for c in CONTRACTS[entry.kind] if issubclass(thing, c))
    found.contract = contract.__name__
    signature = inspect.signature(thing)
    found.built = f"{thing.__name__}({', '.join(_argument(p) for p in signature.parameters.values())})"
    for name in inspect.get_annotations(contract):
        value = getattr(thing, name, None)
        if isinstance(value, bool | int | str) or (value is None and hasattr(thing, name)):
            found.declares[name] = value
    return found


def _options(makers: Sequence[Callable[..., Any]]) -> list[Option]:
    """What may be chosen of classes or functions, with what their docstrings say of it."""
    meanings: dict[str, str] = {}
    for said in (p for make in makers for p in docstring_parser.parse(inspect.getdoc(make) or "").params):
        for name in said.arg_name.split(","):  # "depth, heads: ..." says it of both
            meanings.setdefault(name.strip(), " ".join((said.description or "").split()))
    chosen = {p.name: p for make in makers for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return [Option(p.name, _annotation(p.annotation), repr(p.default), meanings.get(p.name, "")) for p in chosen.values()]


def load(entry: Entry) -> Any:
    """What an entry stands for; a part is held to its contract.

    Raises:
        MobtkError: it does not load.
    """
    if entry.kind in CONTRACTS:
        return load_part(entry.kind, entry.full_name)
    try:
        thing = entry.load()
    except Exception as error:  # a plugin may raise anything at import
        raise MobtkError(f"{entry.kind} {entry.full_name!r} does not load: {type(error).__name__}: {error}") from error
    if entry.kind == "recipe" and not isinstance(thing, Recipe):
        raise MobtkError(f"recipe {entry.full_name!r} ({entry.target}) is no mobtk.recipe.Recipe")
    return thing


def place(thing: type) -> str:
    """File and line of a class."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return thing.__module__


def _argument(parameter: inspect.Parameter) -> str:
    return parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)


def faults() -> list[Fault]:
    """What is wrong with plugins and with the parts they register, and what their imports do that they should leave."""
    found = []
    for plugin in loaded().plugins:
        if plugin.problem:
            found.append(Fault(_of(plugin), plugin.problem, plugin.trace))
        found += [Fault(_of(plugin), f"its import {note}", serious=False) for note in plugin.notes]
    for entry in registry():
        what = f"{entry.kind} {entry.full_name}"
        try:
            thing = load(entry)
            if isinstance(thing, Recipe):
                check(thing)
        except MobtkError as error:
            found.append(Fault(what, str(error), own_trace(error.__cause__) if error.__cause__ else ""))
        found += [Fault(what, f"its import {note}", serious=False) for note in entry.notes if entry.package != BUILT_IN]
    return found


def _of(plugin: Plugin) -> str:
    return f"plugin {plugin.name} ({plugin.origin})"
