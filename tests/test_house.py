"""The house: imports flow downwards, nothing is unpickled."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import mobtk

ROOT = Path(mobtk.__file__).parent

FLOORS = [
    ("cli",),
    ("demo", "benchmarks"),
    ("testing",),
    ("comparing",),
    ("report",),
    ("experiments", "usefulness", "explaining"),
    ("evaluation", "audit", "forecasting", "completing"),
    ("training", "generation"),
    ("lessons",),
    ("runs", "privacy"),
    ("baselines",),
    ("inventory",),
    ("models",),
    ("tokenizers",),
    ("mappers", "backbones", "routers", "mixers", "masks"),
    ("metrics",),
    ("data",),
    ("recipe", "storage", "options"),
    ("builtin",),
    ("plugins",),
    ("registry",),
    ("contracts",),
    ("schedule",),
    ("kernels",),
    ("isolation",),
    ("errors", "geo", "tables", "_version"),
]
"""From the roof down; a room may import its own floor's own files and any floor below."""


def _floor(module: str) -> int:
    room = module.split(".")[1]
    found = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    assert found, f"{module} has no floor in this test; give it one"
    return found[0]


def _imports(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mobtk"):
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "mobtk" else [node.module]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("mobtk."))


def test_imports_never_go_up():
    up = []
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue
        me = ".".join(("mobtk", *parts))
        for other in _imports(file):
            same_room = other.split(".")[1] == parts[0]
            if not same_room and _floor(other) <= _floor(me):
                up.append(f"{me} imports {other}")
    assert up == []


def test_the_top_level_holds_what_belongs_there():
    """Results of a run or data in the checkout are one ``git add`` away from being shipped."""
    top = ROOT.parent
    if not (top / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=top, capture_output=True, text=True, check=True).stdout
    rooms = {line.split("/")[0] for line in tracked.splitlines()}
    assert {r for r in rooms if not r.startswith(".")} <= {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "mobtk", "plugins", "examples", "tests", "docs"
    }  # fmt: skip


def test_nothing_is_pickled_or_evaluated():
    forbidden = re.compile(r"\bimport pickle|\btorch\.(load|save)\(|allow_pickle=True|\beval\(|\bexec\(|yaml\.load")
    found = [
        f.name for f in ROOT.rglob("*.py") if forbidden.search(f.read_text().replace(".eval(", "(").replace("_exec", ""))
    ]
    assert found == []


def test_shapes_are_not_switched_off():
    """With postponed annotations the shapes in signatures would be strings that nobody checks."""
    assert [f.name for f in ROOT.rglob("*.py") if "from __future__ import annotations" in f.read_text()] == []
