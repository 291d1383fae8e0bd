"""Plugins: how parts enter. One hook, one entry-point group, and the built-in parts come by the same road.

    [project.entry-points.mobtk]
    acme = "acme_mobility"

    # acme_mobility/__init__.py
    import mobtk

    @mobtk.hookimpl
    def mobtk_register(registry):
        registry.backbone("gru", "acme_mobility.gru:GRU", "Gated recurrent units (Cho et al. 2014)")

Each plugin is loaded on its own: one that does not import, misspells the hook or takes a name that is taken is
skipped whole and reported in one line; everything else keeps working. ``MOBTK_PLUGINS=a,b`` restricts loading to
the named entry points, ``MOBTK_STRICT_PLUGINS=1`` makes any failure fatal.
"""

import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from mobtk.errors import MobtkError
from mobtk.registry import Registry

GROUP = "mobtk"
API_VERSION = 1
"""Raised when a contract changes. A plugin may state ``MOBTK_API_VERSION`` in its module; another number skips it."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """What a plugin may implement."""

    @hookspec
    def mobtk_register(self, registry: Registry) -> None:
        """Add parts and recipes to ``registry`` (as strings: nothing heavy is imported here)."""


@dataclass
class Plugin:
    """What became of one plugin.

    Args:
        name: its entry-point name, the ``package`` in full names of parts.
        origin: distribution and version, or the file it came from.
        target: the module it names.
        seconds: time to import and register it.
        problem: why it was skipped, or ``None``.
        parts: how many parts and recipes it added.
    """

    name: str
    origin: str
    target: str
    seconds: float = 0.0
    problem: str | None = None
    parts: int = 0


class Loaded:
    """All plugins that were found, and the parts of those that loaded."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.plugins: list[Plugin] = []

    def add(self, plugin: Plugin, load: Any) -> None:
        """Load one plugin (``load()`` returns its module) and take over its parts, or none of them."""
        started = time.perf_counter()
        try:
            if any(p.name == plugin.name and p.problem is None for p in self.plugins):
                raise ValueError(f"another plugin is called {plugin.name!r}")
            found = _collect(plugin.name, load())
            self.registry.merge(found)
            plugin.parts = len(list(found))
        except (Exception, SystemExit) as error:
            plugin.problem = f"{type(error).__name__}: {error}".splitlines()[0]
        plugin.seconds = time.perf_counter() - started
        self.plugins.append(plugin)
        if plugin.problem:
            message = f"plugin {plugin.name!r} ({plugin.origin}) was skipped: {plugin.problem}"
            if os.environ.get("MOBTK_STRICT_PLUGINS") == "1":
                raise MobtkError(message)
            print(f"mobtk: {message} (mobtk plugins doctor tells more)", file=sys.stderr)

    def add_file(self, path: str | Path) -> None:
        """Load a plugin from a single file."""
        file = Path(path)
        if not file.is_file():
            raise MobtkError(f"--plugin {path}: no such file; give the path of a Python file with a mobtk_register hook")
        taken = importlib.util.find_spec(file.stem)
        if taken is not None and taken.origin != str(file.resolve()):
            raise MobtkError(f"--plugin {path}: another module is called {file.stem!r}; rename the file")
        self.add(Plugin(file.stem, str(file), file.stem), lambda: _import_file(file))


def _import_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that targets of the form "my_part:MyBackbone" import
    spec.loader.exec_module(module)
    return module


def _collect(name: str, module: Any) -> Registry:
    """The parts a plugin module registers, held apart until all of them are known to be good."""
    wanted = getattr(module, "MOBTK_API_VERSION", API_VERSION)
    if wanted != API_VERSION:
        raise ValueError(f"it is written for plugin API {wanted}, this mobtk has {API_VERSION}")
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(module)
    manager.check_pending()
    if not manager.hook.mobtk_register.get_hookimpls():
        raise ValueError("it has no mobtk_register hook (decorate it with @mobtk.hookimpl)")
    registry = Registry(name)
    manager.hook.mobtk_register(registry=registry)
    return registry


def _discover() -> list[EntryPoint]:
    """The entry points of the group, built-in parts first, then by name; ``MOBTK_PLUGINS`` picks among the others."""
    points = sorted(entry_points(group=GROUP), key=lambda p: (p.value != "mobtk.builtin", p.name))
    only = os.environ.get("MOBTK_PLUGINS")
    if only is None:
        return points
    names = {n.strip() for n in only.split(",")}
    return [p for p in points if p.value == "mobtk.builtin" or p.name in names]


_loaded: Loaded | None = None


def loaded() -> Loaded:
    """All plugins, loaded at the first call."""
    global _loaded
    if _loaded is None:
        fresh = Loaded()
        for point in _discover():
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
            fresh.add(Plugin(point.name, origin, point.value), point.load)
        _loaded = fresh
    return _loaded


def registry() -> Registry:
    """The parts of all plugins."""
    return loaded().registry
