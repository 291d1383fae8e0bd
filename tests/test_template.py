"""A new plugin works as it is made."""

import json
import os
import tomllib

import pytest
from sandbox import Environment

from mobtk.errors import BadInput
from mobtk.testing.template import KINDS, make_plugin


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_of_each_kind_installs_and_passes_its_tests(tmp_path):
    home = make_plugin("acme-lab", tmp_path / "all", kinds=list(KINDS), author="Ada", licence="BSD-3-Clause")
    singles = [make_plugin(f"only-{kind.replace('_', '-')}", tmp_path / kind, kinds=[kind, "recipe"]) for kind in KINDS]
    env = Environment(tmp_path / "env")
    env.install(home, *singles)
    for one in (home, *singles):
        done = env.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=one)
        assert done.returncode == 0, done.stdout[-3000:]
    names = ["acme-lab", *(f"only-{kind.replace('_', '-')}" for kind in KINDS)]
    found = {p["name"]: p for p in json.loads(env.mobtk("plugins", "list", "--json").stdout)}
    assert {n: found[n]["problem"] for n in names} == dict.fromkeys(names)
    assert found["acme-lab"]["licence"] == "BSD-3-Clause"
    assert env.mobtk("plugins", "check", "acme-lab").returncode == 0
    assert not json.loads(env.mobtk("plugins", "doctor", "--json").stdout)["faults"]


def test_it_is_whole(tmp_path):
    home = make_plugin("acme", tmp_path / "acme", kinds=["backbone"], author='Ada "X" Lovelace')
    tomllib.loads((home / "pyproject.toml").read_text())
    files = {str(f.relative_to(home)) for f in home.rglob("*") if f.is_file()}
    assert files == {
        "pyproject.toml", "README.md", "LICENSE", ".gitignore", ".github/workflows/tests.yml", "tests/test_laws.py",
        "mobtk_acme/__init__.py", "mobtk_acme/backbone.py", "mobtk_acme/py.typed",
    }  # fmt: skip
    assert "Ada" in (home / "LICENSE").read_text()
    for file in home.rglob("*.py"):
        compile(file.read_text(), str(file), "exec")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"name": "Acme!"}, "not of small letters"),
        ({"name": "mobtk"}, "a plugin is called 'mobtk' already"),
        ({"name": "acme", "kinds": ["wheel"]}, "no plugin holds wheel; kinds are mapper"),
        ({"name": "acme", "kinds": []}, "ask for one, such as --backbone"),
        ({"name": "acme", "licence": "mine"}, "licence 'mine' is not one of MIT"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(tmp_path, how, told):
    with pytest.raises(BadInput, match=told):
        make_plugin(out=tmp_path / "new", **how)
    assert not os.listdir(tmp_path)


def test_what_exists_is_not_replaced(tmp_path):
    make_plugin("acme", tmp_path / "acme")
    with pytest.raises(BadInput, match="exists already"):
        make_plugin("acme", tmp_path / "acme")
