import json
import os
import resource
import subprocess
import sys

import pytest

from mobtk.cli import COMMANDS

MOBTK = [sys.executable, "-m", "mobtk"]


def _run(*args, **options):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*MOBTK, *map(str, args)], capture_output=True, text=True, env=env, check=False, **options)


@pytest.mark.parametrize("args", [["--help"], ["parts"], ["--version"], ["plugins", "list"]])
def test_listing_imports_nothing_heavy(args):
    code = (
        "import sys; from mobtk.cli import cli\n"
        f"cli.main({args!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'numpy', 'geopandas', 'pandas', 'h3', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_little_processor_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert _run("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command):
    done = _run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_whole_loop_by_commands_alone(tmp_path):
    steps = [
        ["data", "city", "-o", "city", "--weeks", "60", "--json"],
        ["data", "info", "city", "--json"],
        ["build", "tiny", "--data", "city", "--backbone", "mamba", "--set", "backbone.depth=1", "-o", "run", "--json"],
        ["train", "run", "--json"],
        ["generate", "run", "-n", "20", "--json"],
        ["evaluate", "run", "--repeats", "1", "--json"],
    ]
    results = []
    for step in steps:
        done = _run(*step, cwd=tmp_path)
        assert done.returncode == 0, (step, done.stderr)
        results.append(json.loads(done.stdout))
    assert results[0]["split"]["train"] == 32
    assert results[2]["passes"] == 3
    assert 'name = "mobtk.mamba"' in (tmp_path / "run" / "recipe.toml").read_text()
    assert set(results[-1]["scores"]) == {"floor", "model", "Markov", "time of day", "EPR"}
    text = _run("evaluate", "run", "--repeats", "1", cwd=tmp_path).stdout
    assert "DailyLoc" in text


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["build", "--backbone", "mambo", "-o", "r"], "no backbone is called 'mambo'; did you mean 'mamba'"),
        (
            ["build", "--mapper", "places", "-o", "r"],
            "tokenizer 'rvq' wants a mapper with levels; 'places' has one only. Try: grid, h3",
        ),
        (["build", "--set", "tokenizer.colour=3", "-o", "r"], "tokenizer 'rvq' has no option 'colour'"),
        (["build", "--set", "width", "-o", "r"], "not of the form key=value"),
        (["build", "--set", "width=-1", "-o", "r"], "setting 'width'"),
        (["build", "nothing.toml", "-o", "r"], "recipe nothing.toml is not a file"),
        (["build", "--data", "nowhere", "-o", "r"], "nowhere is not a dataset"),
        (["build", "--experts", "3", "-o", "r"], "Try: input, entity"),
        (["train", "nowhere"], "nowhere is not a run"),
        (["generate", "nowhere", "-n", "3"], "nowhere is not a run"),
        (["evaluate", "nowhere"], "nowhere is not a run"),
        (["data", "info", "nowhere"], "nowhere is not a dataset"),
        (["data", "prepare", "nowhere.csv", "-o", "d"], "nowhere.csv is not a file"),
        (["parts", "colour"], "no kind of part called 'colour'"),
        (["plugins", "check", "acme"], "no plugin 'acme' is loaded"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(tmp_path, args, complaint):
    done = _run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    done = _run("data", "city", "-o", tmp_path / "c", "--weeks", "8")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot write" in done.stderr
