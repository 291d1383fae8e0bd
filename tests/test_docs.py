"""What the pages tell people to type is understood, and the part they show keeps the laws."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sandbox import Environment

from mobtk.cli import cli
from mobtk.plugins import Loaded

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md")),
         *sorted((ROOT / "examples").glob("*/README.md"))]  # fmt: skip


def _blocks(page, language):
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


WORKED = [ROOT / "docs" / "howto" / name for name in ("first-part.md", "ship-a-paper.md")]
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
    for name, words in {"pip": f"shift\nexec {pip}", "mobtk": f"exec {env.bin}/python -m mobtk -q"}.items():
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
    assert len(blocks) > 5


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
