"""A plugin package to begin with: a part of each kind asked for, which installs, registers and keeps its laws as it is."""

import re
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import jinja2

from mobtk._version import __version__
from mobtk.errors import BadInput
from mobtk.plugins import API_VERSION, loaded
from mobtk.storage import PathLike, new_folder

KINDS = {
    "mapper": "a spatial mapper",
    "tokenizer": "a tokenizer of sequences",
    "field_tokenizer": "a tokenizer of fields",
    "point_tokenizer": "a tokenizer of points",
    "backbone": "a sequence backbone",
    "router": "a router of experts",
    "mixer": "a mixer of nodes",
    "mask": "a mask",
    "recipe": "a paper's recipe",
    "experiment": "a question with a verdict",
}
"""What a new plugin may hold."""

LICENCES = ("MIT", "BSD-3-Clause", "ISC", "none")
COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".github/workflows/tests.yml": "tests.yml",
    "{module}/__init__.py": "init.py",
    "{module}/py.typed": "py.typed",
    "tests/test_laws.py": "test_laws.py",
}


def make_plugin(
    name: str,
    out: PathLike | None = None,
    *,
    kinds: Sequence[str] = ("backbone",),
    author: str = "",
    licence: str = "MIT",
) -> Path:
    """Write a plugin package. ``mobtk plugins new`` does the same.

    Args:
        name: its entry-point name, the first half of the full names of its parts, such as ``acme``.
        out: folder; ``mobtk-NAME`` here by default.
        kinds: of :data:`KINDS`.
        author: named in the licence and the package; by default who git says you are.
        licence: one of :data:`LICENCES`.

    Raises:
        BadInput: a name that is taken or is none, an unknown kind or licence, nothing to make, or the folder exists.
    """
    name = name.removeprefix("mobtk-")
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BadInput(f"plugin name {name!r} is not of small letters, digits and dashes, such as acme or acme-lab")
    if any(p.name == name for p in loaded().plugins):
        raise BadInput(f"a plugin is called {name!r} already; choose another name")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise BadInput(f"no plugin holds {', '.join(unknown)}; kinds are {', '.join(KINDS)}")
    if not kinds:
        raise BadInput("a plugin without any part is none; ask for one, such as --backbone")
    if licence not in LICENCES:
        raise BadInput(f"licence {licence!r} is not one of {', '.join(LICENCES)}; choose none and add your own")
    module = f"mobtk_{name.replace('-', '_')}"
    values = {
        "name": name,
        "module": module,
        "title": "".join(word.capitalize() for word in name.split("-")),
        "kinds": [kind for kind in KINDS if kind in kinds],
        "task": _task(kinds),
        "author": author or _git_author() or "the authors",
        "licence": licence,
        "year": date.today().year,
        "version": __version__,
        "next_version": _next(__version__),
        "api": API_VERSION,
    }
    files = {path.format(module=module): source for path, source in COMMON.items()}
    files |= {f"{module}/{kind}.py": f"{kind}.py" for kind in kinds}
    files |= {f"tests/test_{kind}.py": f"test_{kind}.py" for kind in ("recipe", "experiment") if kind in kinds}
    if licence != "none":
        files["LICENSE"] = f"LICENSE.{licence}"
    shelf = jinja2.Environment(
        loader=jinja2.PackageLoader("mobtk.testing.template", "files"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = Path(out or f"mobtk-{name}")
    if path.exists():
        raise BadInput(f"{path} exists already; choose another folder with -o")
    with new_folder(path) as folder:
        for file, source in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(shelf.get_template(f"{source}.jinja").render(values), encoding="utf-8")
    return path


def _task(kinds: Sequence[str]) -> str:
    """What the recipe of a new plugin does: what most of its parts are for."""
    if {"mapper", "tokenizer"} & set(kinds):
        return "generate"
    if {"field_tokenizer", "mixer"} & set(kinds):
        return "forecast"
    return "complete" if {"point_tokenizer", "mask"} & set(kinds) else "generate"


def _git_author() -> str:
    try:
        return subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _next(version: str) -> str:
    """The first version that may break what works with this one."""
    major, minor = version.split(".")[:2]
    return f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
