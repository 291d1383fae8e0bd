"""What the pages tell people to type is understood, and the part they show keeps the laws."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobtk.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]


def _blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _commands():
    for page in PAGES:
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


def test_the_part_shown_in_the_pages_keeps_the_laws(tmp_path):
    shown = _blocks(ROOT / "docs" / "contracts.md", "python")[-1]
    (tmp_path / "my_part.py").write_text(shown, encoding="utf-8")
    mobtk = [sys.executable, "-m", "mobtk", "--plugin", "my_part.py"]
    check = subprocess.run(
        [*mobtk, "plugins", "check", "my_part"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert "average" in check.stdout
