"""The course: chapters run as scripts and as notebooks, and answers to the exercises are right."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LEARN = Path(__file__).resolve().parents[1] / "docs" / "learn"
CHAPTERS = sorted(LEARN.glob("[0-9][0-9]_*.py"))


def _load(name):
    spec = importlib.util.spec_from_file_location(name, LEARN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = _load("check")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What chapters share of data is made once."""
    return tmp_path_factory.mktemp("course")


def test_there_is_an_exercise_for_each_chapter_and_a_line_in_the_index():
    assert len(CHAPTERS) == len(check.CHECKS) == 12
    index = (LEARN / "index.md").read_text(encoding="utf-8")
    for i, chapter in enumerate(CHAPTERS, 1):
        assert int(chapter.name[:2]) == i and f"]({chapter.name})" in index
        text = chapter.read_text(encoding="utf-8")
        assert f"**Exercise {i}.**" in text and "**Quick check.**" in text


@pytest.mark.parametrize("one", check.CHECKS, ids=lambda c: c.__name__)
def test_the_answer_is_right_and_no_answer_is_not(one):
    one(_load("answers"))
    with pytest.raises((NotImplementedError, AssertionError)):
        one(_load("exercises"))


def test_wrong_answers_are_told(tmp_path):
    answers = (LEARN / "answers.py").read_text(encoding="utf-8")
    wrong = answers.replace("x + (chosen - x).detach()", "chosen").replace("+ (gap == 0).mean() / 2", "")
    (tmp_path / "mine.py").write_text(wrong, encoding="utf-8")
    words = [sys.executable, str(LEARN / "check.py"), "--file", str(tmp_path / "mine.py")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = dict(re.findall(r"exercise +(\d+): (\w+)", done.stdout))
    assert done.returncode == 1 and {i for i, word in said.items() if word != "right"} == {"3", "11"}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.stem)
def test_a_chapter_is_a_notebook(chapter):
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(chapter)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown" and kinds.count("code") > 2 and "finish(" in notebook.cells[-1].source


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.stem)
def test_a_chapter_runs_and_ends_with_a_number_and_a_picture(chapter, work):
    environment = os.environ | {"MOBTK_COURSE": str(work)}
    words = [sys.executable, str(chapter)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    number, picture = done.stdout.strip().splitlines()[-2:]
    assert re.match(r"[\d.e+-]+ \w", number) and (work / f"{chapter.stem}.png").stat().st_size > 5_000, picture


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chapter", [CHAPTERS[0], CHAPTERS[5]], ids=lambda c: c.stem)
def test_a_chapter_runs_as_a_notebook(chapter, work, monkeypatch):
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    monkeypatch.setenv("MOBTK_COURSE", str(work))
    notebook = jupytext.read(chapter)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(LEARN)}}).execute()
    shown = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert shown, "no picture is shown"
