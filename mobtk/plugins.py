"""Plugins: how parts enter. One hook, one entry-point group, and the built-in parts come by the same road.

    [project.entry-points.mobtk]
    acme = "acme_mobility"

    # acme_mobility/__init__.py
    import mobtk

    @mobtk.hookimpl
    def mobtk_register(registry):
        registry.backbone("gru", "acme_mobility.gru:GRU", "Gated recurrent units (Cho et al. 2014)")

Each plugin is loaded on its own: one that does not import, is written for another version, misspells the hook or takes a
name that is taken is skipped whole and reported in one line; everything else keeps working. ``MOBTK_PLUGINS=a,b`` restricts
loading to the named ones, ``MOBTK_STRICT_PLUGINS=1`` makes any failure fatal.

A single file is a plugin, too: named by ``--plugin``, or in a folder ``mobtk_plugins`` beside a dataset or a run.
"""

import ast
import importlib.util
import inspect
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, PackageMetadata, entry_points
from pathlib import Path
from typing import Any

import pluggy

from mobtk._version import __version__
from mobtk.errors import MobtkError, first_line
from mobtk.isolation import watched
from mobtk.registry import Registry

log = logging.getLogger("mobtk")

GROUP = "mobtk"
API_VERSION = 1
"""Raised when a contract changes so that parts must change, too. A plugin states the one it is written for as
``MOBTK_API_VERSION = 1`` in its module; it is read before the module is imported."""
OLDEST_API_VERSION = 1
"""Plugins written for an older one are skipped."""
FOLDER = "mobtk_plugins"
"""Beside a dataset or a run, never inside it: what one downloads runs no code."""
SLOW = 0.5
"""Seconds of import that are worth a word."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """What a plugin may implement."""

    @hookspec
    def mobtk_register(self, registry: Registry) -> None:
        """Add parts and recipes to ``registry`` (as strings: nothing heavy is imported here)."""


HOOK = Hooks.mobtk_register.__name__


@dataclass
class Plugin:
    """What became of one plugin.

    Args:
        name: its entry-point name, the ``package`` in full names of parts.
        origin: distribution and version, or the file it came from.
        target: the module it names.
        licence: as its distribution states it; empty where it does not.
        seconds: time to import and register it.
        problem: why it was skipped, or ``None``.
        trace: the end of the stack that led there, in the plugin's own code.
        notes: what its import does that it should leave.
        parts: how many parts and recipes it added.
    """

    name: str
    origin: str
    target: str
    licence: str = ""
    seconds: float = 0.0
    problem: str | None = None
    trace: str = ""
    notes: list[str] = field(default_factory=list)
    parts: int = 0

    @property
    def of_file(self) -> bool:
        """Whether it is a single file."""
        return self.origin.endswith(".py")


class Loaded:
    """All plugins that were found, and the parts of those that loaded."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.plugins: list[Plugin] = []

    def add(self, plugin: Plugin, load: Callable[[], Any], check: Callable[[], None] = lambda: None) -> None:
        """Load one plugin (``load()`` returns its module) and take over its parts, or none of them.

        Args:
            plugin: what is known of it.
            load: imports it.
            check: raises, before it is imported, where it does not go with this mobtk.
        """
        started = time.perf_counter()
        try:
            for other in self.plugins:
                if other.name == plugin.name and other.problem is None:
                    raise ValueError(f"another plugin is called {plugin.name!r} ({other.origin})")
            check()
            with watched() as plugin.notes:
                found = _collect(plugin.name, load())
            self.registry.merge(found)
            plugin.parts = len(list(found))
        except (Exception, SystemExit) as error:
            plugin.problem = f"{type(error).__name__}: {first_line(error)}"
            plugin.trace = own_trace(error)
        plugin.seconds = time.perf_counter() - started
        if plugin.seconds > SLOW and not plugin.of_file:
            plugin.notes.append(
                f"takes {plugin.seconds:.1f} s; what is heavy is better imported by the modules of the parts"
            )
        self.plugins.append(plugin)
        if plugin.problem:
            message = f"plugin {plugin.name!r} ({plugin.origin}) was skipped: {plugin.problem}"
            if os.environ.get("MOBTK_STRICT_PLUGINS") == "1":
                raise MobtkError(message)
            print(f"mobtk: {message} (mobtk plugins doctor tells more)", file=sys.stderr)

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Load a plugin from a single file, unless it is loaded already.

        Raises:
            MobtkError: there is no such file, or its name is that of another module.
        """
        file = Path(path)
        if not file.is_file():
            raise MobtkError(f"plugin {path}: no such file; give the path of a Python file with a mobtk_register hook")
        if any(p.origin == str(file.resolve()) for p in self.plugins):
            return
        if not file.stem.isidentifier():
            raise MobtkError(
                f"plugin {path}: {file.stem!r} is no name of a module; name the file with letters, digits and _"
            )
        taken = importlib.util.find_spec(file.stem)
        if taken is not None and taken.origin != str(file.resolve()):
            raise MobtkError(f"plugin {path}: another module is called {file.stem!r}; rename the file")
        plugin = Plugin(file.stem, str(file.resolve()), file.stem)
        self.add(plugin, lambda: _import_file(file), lambda: _check_api(file))

    def add_beside(self, path: str | os.PathLike[str]) -> None:
        """Load the files of a folder ``mobtk_plugins`` beside a dataset or a run, where there is one."""
        self.add_folder(Path(path).resolve().parent / FOLDER)

    def add_folder(self, folder: str | os.PathLike[str]) -> None:
        """Load the files of a folder, where there is one; one that cannot be loaded is told in a line."""
        only = _only()
        for file in sorted(Path(folder).resolve().glob("[!_.]*.py")):
            if (only is None or file.stem in only) and not any(p.origin == str(file) for p in self.plugins):
                log.info("plugin %s", file)
                try:
                    self.add_file(file)
                except MobtkError as error:
                    log.warning("%s; it is skipped", error)

    def refuse_skipped(self, files: Iterable[str | os.PathLike[str]]) -> None:
        """Refuse to go on without plugin files that were asked for.

        Raises:
            MobtkError: one of them was skipped.
        """
        asked = {str(Path(file).resolve()) for file in files}
        for plugin in self.plugins:
            if plugin.problem and plugin.origin in asked:
                raise MobtkError(f"plugin {plugin.origin} was asked for and does not load; see mobtk plugins doctor")

    def offered(self, name: str) -> bool:
        """Whether a plugin of this name is loaded."""
        return any(p.name == name and p.problem is None for p in self.plugins)


def own_trace(error: BaseException) -> str:
    """The stack of an error from where it enters foreign code."""
    here = str(Path(__file__).parent)
    skipped = ("importlib", "<frozen", here, os.sep + "pluggy" + os.sep, ast.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(s in f.filename for s in skipped)]
    return "".join(traceback.format_list(own)) + "".join(traceback.format_exception_only(error)) if own else ""


def _import_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that targets of the form "my_part:MyBackbone" import
    spec.loader.exec_module(module)
    return module


def _check_needs(point: EntryPoint) -> None:
    """Refuse, before it is imported, a plugin that wants another mobtk or another API."""
    for line in (point.dist.requires or []) if point.dist else []:
        if line.startswith(GROUP) and any(mark in line for mark in "<>=~!"):  # else there is nothing to ask packaging for
            from packaging.requirements import Requirement

            needs = Requirement(line)
            applies = needs.name == GROUP and (needs.marker is None or needs.marker.evaluate({"extra": ""}))
            if applies and not needs.specifier.contains(__version__, prereleases=True):
                raise ValueError(
                    f"it wants mobtk {needs.specifier}, and this is mobtk {__version__}; install another of either"
                )
    if file := _source(point.module):
        _check_api(file)


def _check_api(file: Path) -> None:
    """Refuse a module that states an API number that is not ours."""
    for line in ast.parse(file.read_bytes(), str(file)).body:
        targets = line.targets if isinstance(line, ast.Assign) else [line.target] if isinstance(line, ast.AnnAssign) else []
        named = any(isinstance(t, ast.Name) and t.id == "MOBTK_API_VERSION" for t in targets)
        if named and isinstance(value := getattr(line, "value", None), ast.Constant):
            _check_number(value.value)


def _check_number(wanted: Any) -> None:
    if wanted == API_VERSION or (isinstance(wanted, int) and OLDEST_API_VERSION <= wanted < API_VERSION):
        return
    newer = isinstance(wanted, int) and wanted > API_VERSION
    update = "update mobtk" if newer else "update the plugin"
    raise ValueError(f"it is written for plugin API {wanted}, this mobtk has {API_VERSION}; {update}")


def _source(module: str) -> Path | None:
    """The file of a module, found without importing anything."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    for name in rest:
        inside = file.parent / name
        file = inside / "__init__.py" if inside.is_dir() else inside.with_suffix(".py")
    return file if file.suffix == ".py" and file.is_file() else None


def _collect(name: str, module: Any) -> Registry:
    """The parts a plugin module registers, held apart until all of them are known to be good."""
    _check_number(getattr(module, "MOBTK_API_VERSION", API_VERSION))
    hook = getattr(module, HOOK, None)
    if hook is not None and list(inspect.signature(hook).parameters)[:1] != ["registry"]:
        raise ValueError(
            f"its {HOOK}{inspect.signature(hook)} does not take `registry`; a hook's arguments go by their names"
        )
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(module)
    for own in list(vars(module)):
        if own.startswith("mobtk_") and own != HOOK and manager.parse_hookimpl_opts(module, own):
            raise ValueError(f"there is no hook {own!r}; did you mean {HOOK!r}?")
    manager.check_pending()
    if not manager.hook.mobtk_register.get_hookimpls():
        raise ValueError("it has no mobtk_register hook (decorate it with @mobtk.hookimpl)")
    registry = Registry(name)
    manager.hook.mobtk_register(registry=registry)
    return registry


def _only() -> set[str] | None:
    """The names that ``MOBTK_PLUGINS`` restricts loading to."""
    only = os.environ.get("MOBTK_PLUGINS")
    return None if only is None else {n.strip() for n in only.split(",")}


def _discover() -> list[EntryPoint]:
    """The entry points of the group, built-in parts first, then by name."""
    points = sorted(entry_points(group=GROUP), key=lambda p: (p.value != "mobtk.builtin", p.name))
    only = _only()
    return [p for p in points if only is None or p.value == "mobtk.builtin" or p.name in only]


def _licence(metadata: PackageMetadata) -> str:
    """As a distribution states it: an expression, a classifier, or a short text."""
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License :: ")]
    expression, text = ([metadata[field]] if field in metadata else [] for field in ("License-Expression", "License"))
    for line in (*expression, *classifiers, *text):
        if line:
            return str(line).rpartition(" :: ")[2].splitlines()[0][:40]
    return ""


_loaded: Loaded | None = None


def loaded() -> Loaded:
    """All plugins, loaded at the first call."""
    global _loaded
    if _loaded is None:
        fresh = Loaded()
        for point in _discover():
            origin = (
                f"{point.dist.name} {point.dist.version}" if point.dist and point.dist.name else f"unknown, {point.value}"
            )
            plugin = Plugin(point.name, origin, point.value, _licence(point.dist.metadata) if point.dist else "")
            fresh.add(plugin, point.load, lambda point=point: _check_needs(point))  # type: ignore[misc]
        _loaded = fresh
    return _loaded


def registry() -> Registry:
    """The parts of all plugins."""
    return loaded().registry
