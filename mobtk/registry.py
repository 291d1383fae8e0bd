"""The registry: which parts and recipes are installed, by name. Holds strings only; imports nothing heavy."""

import difflib
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mobtk.errors import UnknownPart
from mobtk.isolation import watched

log = logging.getLogger("mobtk")

BUILT_IN = "mobtk"
KINDS = ("mapper", "tokenizer", "backbone", "router", "mixer", "mask", "recipe", "experiment")


@dataclass
class Entry:
    """One registered part or recipe.

    Args:
        kind: one of :data:`KINDS`.
        name: its short name, such as ``rvq``.
        package: the entry point it came by, such as ``mobtk``.
        target: ``module:object``, imported only when asked for.
        summary: one line for listings.
        notes: what its import did that it should leave, if it was the first to import its module.
    """

    kind: str
    name: str
    package: str
    target: str
    summary: str
    notes: list[str] = field(default_factory=list, compare=False)

    @property
    def full_name(self) -> str:
        """``package.name``: what runs store."""
        return f"{self.package}.{self.name}"

    def load(self) -> Any:
        """Import the object."""
        module, _, attribute = self.target.partition(":")
        if module not in sys.modules:
            try:
                with watched() as self.notes:
                    importlib.import_module(module)
            except SystemExit as error:
                raise ImportError(f"{module} ends the program: {error}") from error
        return getattr(sys.modules[module], attribute)


class Registry:
    """Parts and recipes by kind and name. A plugin's hook fills one; :func:`mobtk.plugins.registry` merges them.

    Args:
        package: the entry point on whose behalf parts are added.
    """

    def __init__(self, package: str = "") -> None:
        self.package = package
        self._entries: dict[tuple[str, str], Entry] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    def add(self, kind: str, name: str, target: str, summary: str) -> None:
        """Register one part. The methods below do it with the kind in their name.

        Raises:
            ValueError: no such kind, a target that is no ``module:object``, or a name registered before.
        """
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        if target.count(":") != 1 or "." in name:
            raise ValueError(f"{kind} {name!r} -> {target!r}: want a name without dots and a 'module:object'")
        self.merge([Entry(kind, name, self.package, target, summary)])

    def mapper(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.contracts.SpatialMapper`."""
        self.add("mapper", name, target, summary)

    def tokenizer(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.contracts.Tokenizer`."""
        self.add("tokenizer", name, target, summary)

    def backbone(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.contracts.Backbone`."""
        self.add("backbone", name, target, summary)

    def router(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.contracts.Router`."""
        self.add("router", name, target, summary)

    def mixer(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.contracts.Mixer`."""
        self.add("mixer", name, target, summary)

    def mask(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.contracts.Mask`."""
        self.add("mask", name, target, summary)

    def recipe(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.recipe.Recipe`."""
        self.add("recipe", name, target, summary)

    def experiment(self, name: str, target: str, summary: str) -> None:
        """Register a :class:`~mobtk.experiments.Experiment`."""
        self.add("experiment", name, target, summary)

    def alias(self, kind: str, old: str, new: str) -> None:
        """The name that a part had before: runs and recipes that hold it go on with the part of the new name.

        Raises:
            ValueError: no part of the new name is registered yet, or there is one of the old name.
        """
        new = f"{self.package}.{new}"
        if (kind, new) not in self._entries or (kind, f"{self.package}.{old}") in self._entries:
            raise ValueError(f"{kind} {old!r} cannot be an old name of {new!r}: the new one is a part, the old one is not")
        self._aliases[kind, f"{self.package}.{old}"] = new

    def merge(self, entries: "list[Entry] | Registry") -> None:
        """Take over entries, all of them or, where a full name is taken, none."""
        new = list(entries)
        for e in new:
            if (e.kind, e.full_name) in self._entries:
                raise ValueError(f"{e.kind} {e.full_name!r} is registered twice")
        self._entries.update({(e.kind, e.full_name): e for e in new})
        if isinstance(entries, Registry):
            self._aliases.update(entries._aliases)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entries(self, kind: str) -> list[Entry]:
        """All entries of a kind, in order of registration."""
        return [e for e in self if e.kind == kind]

    def find(self, kind: str, name: str) -> Entry:
        """The entry of a short or full name.

        A built-in part keeps its short name whatever is installed beside it, so that no plugin changes what a recipe means.

        Raises:
            UnknownPart: there is none, or several packages use the short name.
        """
        if (kind, name) in self._entries:
            return self._entries[kind, name]
        found = [e for e in self.entries(kind) if e.name == name]
        if not found:
            renamed = {new for (k, old), new in self._aliases.items() if k == kind and name in (old, old.rpartition(".")[2])}
            for new in renamed:
                log.info("%s %r is now called %r", kind, name, new)
            found = [self._entries[kind, new] for new in sorted(renamed)]
        own = [e for e in found if e.package == BUILT_IN]
        if len(own or found) == 1:
            return (own or found)[0]
        if found:
            raise UnknownPart(
                f"{kind} {name!r} is offered by several plugins; say which: {', '.join(e.full_name for e in found)}"
            )
        package, _, short = name.rpartition(".")
        if package and package not in {e.package for e in self}:
            raise UnknownPart(
                f"{kind} {short!r} is of plugin {package!r}, which is not loaded; install it, or give its file with --plugin"
            )
        names = [e.name for e in self.entries(kind)]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownPart(f"no {kind} is called {name!r}; {hint}installed: {', '.join(names) or 'none'}")
