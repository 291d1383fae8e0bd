"""What the pages tell people to type is understood, and the part they show keeps the laws."""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from sandbox import Environment

import mobtk
from mobtk.cli import cli
from mobtk.plugins import Loaded

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md")),
         *sorted((ROOT / "examples").glob("*/README.md"))]  # fmt: skip


def _blocks(page, language):
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


ON_THE_CITY = ("my-city.md", "mapper.md", "comparing.md", "releasing.md", "many-machines.md")
WORKED = [ROOT / "docs" / "howto" / name for name in ("first-part.md", "ship-a-paper.md", *ON_THE_CITY)]
"""Pages that are run as a whole."""


def _commands():
    for page in (p for p in PAGES if p not in WORKED):
        for block in _blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for command in line.split("&&"):
                    words = shlex.split(command, comments=True)
                    if words[:1] == ["mobtk"]:
                        yield pytest.param(words[1:], id=f"{page.stem}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", list(_commands()))
def test_every_command_in_the_pages_has_the_options_it_is_given(words):
    result = CliRunner().invoke(cli, [*words, "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", WORKED, ids=lambda p: p.stem)
def test_every_block_of_a_worked_page_runs(page, tmp_path):
    """In order, in an environment of its own: files are written where their title says, commands are run, and those that are
    marked so fail.
    """
    env = Environment(tmp_path / "env")
    pip = f"{sys.executable} -m pip --python {env.bin}/python install -q --no-deps --no-build-isolation"
    torchrun = f"exec {sys.executable} -m torch.distributed.run"
    for name, words in {
        "pip": f"shift\nexec {pip}",
        "mobtk": f"exec {env.bin}/python -m mobtk -q",
        "torchrun": torchrun,
    }.items():
        (env.bin / name).write_text(f'#!/bin/sh\n{words} "$@"\n', encoding="utf-8")
        (env.bin / name).chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    variables = os.environ | {"PATH": f"{env.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    blocks = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for language, more, text in blocks:
        if language == "python":
            (work / re.search('title="(.+)"', more)[1]).write_text(text, encoding="utf-8")
        elif language == "sh":
            shell = ["bash", "-e", "-c", text]
            done = subprocess.run(shell, cwd=work, env=variables, capture_output=True, text=True, check=False)
            told = f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            assert (done.returncode != 0) == ("fails" in more), told
    assert len(blocks) > (2 if page.name in ON_THE_CITY else 5)


def test_blocks_of_the_contracts_run(tmp_path):
    for i, text in enumerate(_blocks(ROOT / "docs" / "contracts.md", "python")):
        (tmp_path / f"test_block_{i}.py").write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "."]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "test_law" in done.stdout, done.stdout[-2000:]


def test_the_reference_is_as_made_from_the_code():
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "reference" / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for page, text in make.PAGES.items():
        stored = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
        assert stored == text(), f"{page} is not what the code says; run: python docs/reference/make.py"


def test_the_hook_as_shown_registers(tmp_path):
    shown = _blocks(ROOT / "docs" / "reference" / "hooks.md", "python")[0]
    (tmp_path / "shown.py").write_text(shown + "    registry.mask('nothing', 'x:Y', '')\n", encoding="utf-8")
    plugins = Loaded()
    plugins.add_file(tmp_path / "shown.py")
    assert [e.full_name for e in plugins.registry] == ["shown.nothing"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_within_the_house_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_in_the_pages_uses_what_there_is(page):
    for text in _blocks(page, "python"):
        names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute) and
                 isinstance(node.value, ast.Name) and node.value.id == "mobtk"}  # fmt: skip
        assert not {name for name in names if not hasattr(mobtk, name)} - {"testing"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_is_built_without_a_warning(tmp_path):
    """Every page is in it, and no link, anchor or name of a function leads nowhere."""
    pytest.importorskip("zensical")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / ".zensical.toml", tmp_path)
    (tmp_path / "mobtk").symlink_to(ROOT / "mobtk")
    words = [sys.executable, "-m", "zensical", "build", "--strict", "-f", ".zensical.toml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    nav = tomllib.loads((ROOT / ".zensical.toml").read_text())["project"]["nav"]
    listed = {page for section in nav for pages in section.values() for page in pages}
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")} - {"learn/data/README.md"}
    assert listed == pages
    assert "mobtk.evaluate" in (tmp_path / ".site" / "reference" / "python" / "index.html").read_text()
