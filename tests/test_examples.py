"""The worked plugins in examples/ install, keep the laws and go with everything they may."""

import json
from pathlib import Path

import pytest
from sandbox import Environment

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(p.parent for p in (ROOT / "examples").glob("*/pyproject.toml"))


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    env = Environment(tmp_path_factory.mktemp("examples") / "env")
    env.install(*EXAMPLES)
    return env


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_its_own_tests_pass(env, example):
    done = env.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=example)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_valid_combination(env):
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_combinations.py", "-k", "voronoi or gru."]
    done = env.run(*words, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 80, done.stdout[-500:]


@pytest.mark.slow
def test_a_run_with_both(env, tmp_path):
    for words in (
        [
            "build",
            "tiny",
            "--mapper",
            "voronoi",
            "--backbone",
            "gru",
            "--weeks",
            "60",
            "-o",
            "run",
            "--set",
            "mapper.cells=64",
        ],
        ["train", "run"],
        ["generate", "run", "-n", "10"],
        ["explain", "run", "--json"],
    ):
        done = env.mobtk("-q", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    boxes = {b["name"]: b for b in json.loads(done.stdout)["boxes"]}
    assert boxes["mapper"]["part"] == "voronoi.voronoi" and boxes["backbone"]["part"] == "gru.gru"
