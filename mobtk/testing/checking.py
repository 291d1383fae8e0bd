"""Parts of plugins, held to their laws: as verdicts, or as cases of pytest."""

import inspect
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import Struct

from mobtk.contracts import SpatialMapper
from mobtk.errors import BadInput, MobtkError, first_line
from mobtk.inventory import load
from mobtk.plugins import own_trace, registry
from mobtk.testing.laws import laws_of

OURS = str(Path(__file__).parents[1])
LIBRARIES = tuple(str(Path(str(library.__file__)).parent) for library in (torch, np))


class Verdict(Struct):
    """What one law says of one part.

    Args:
        part: its kind and full name.
        law: the sentence.
        problem: how it is broken; ``None`` where it holds.
        where: file and line of the part at which an error was raised.
        trace: and the stack there.
    """

    part: str
    law: str
    problem: str | None = None
    where: str = ""
    trace: str = ""


def cases(plugin: str | None = None) -> list[Any]:
    """``(part, law)`` for every part of a plugin (of all plugins by default), as pytest parameters with readable ids.

    Raises:
        BadInput: the plugin is not loaded: not installed, or a single file (hold that to its laws by
            ``mobtk --plugin FILE plugins check``).
    """
    import pytest

    if plugin is not None and plugin not in {e.package for e in registry()}:
        raise BadInput(f"no plugin {plugin!r} is loaded, so there is nothing to hold to its laws; install it first")
    return [
        pytest.param(load(e), law, id=f"{e.full_name}-{law.__name__}")
        for e in registry()
        if plugin in (None, e.package)
        for law in laws_of(e)
    ]


def with_options(kind: Any, **options: Any) -> Any:
    """A part whose constructor (of a mapper, ``fit``) has these options by default, to hold it to its laws with them."""
    if issubclass(kind, SpatialMapper):
        return type(kind.__name__, (kind,), {"example_options": {**kind.example_options, **options}})
    signature = inspect.signature(kind)
    if unknown := set(options) - {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}:
        raise BadInput(f"{kind.__name__} has no option {min(unknown)!r}")

    def init(self: Any, *imposed: Any, **chosen: Any) -> None:
        kind.__init__(self, *imposed, **(options | chosen))

    return type(kind.__name__, (kind,), {"__init__": init, "__signature__": signature})


def check_parts(name: str | None = None, options: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Run every law over every part of a plugin, over one part by its full name, or over all parts.

    Args:
        name: of a plugin or a part.
        options: of the part, instead of its defaults.
    """
    verdicts = []
    for entry in registry():
        if name not in (None, entry.package, entry.full_name):
            continue
        part = f"{entry.kind} {entry.full_name}"
        try:
            laws = laws_of(entry)
            kind = load(entry)
            if options:
                kind = with_options(kind, **options)
        except MobtkError as error:
            verdicts.append(Verdict(part, "It loads", str(error), *_origin(error.__cause__ or error)))
            continue
        for law in laws:
            verdict = Verdict(part, (law.__doc__ or law.__name__).strip().rstrip("."))
            try:
                law(kind)
            except AssertionError as error:
                verdict.problem = first_line(error)
            except Exception as error:  # a foreign part may raise anything
                verdict.problem = f"{type(error).__name__}: {first_line(error)}"
                verdict.where, verdict.trace = _origin(error)
            verdicts.append(verdict)
    return verdicts


def _origin(error: BaseException) -> tuple[str, str]:
    """File and line in foreign code at which an error was raised, and the stack from there."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((OURS, *LIBRARIES))]
    return (f"{own[-1].filename}:{own[-1].lineno}", own_trace(error)) if own else ("", "")
