import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from mobtk import hookimpl
from mobtk.errors import MobtkError, UnknownPart
from mobtk.inventory import describe
from mobtk.plugins import Loaded, Plugin, loaded, registry
from mobtk.registry import Registry


def _module(register, **attributes):
    module = types.ModuleType("made_up")
    module.mobtk_register = hookimpl(register)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _add(plugins, name, module):
    def load():
        if isinstance(module, Exception):
            raise module
        return module

    plugins.add(Plugin(name, "made-up 1.0", name), load)
    return plugins.plugins[-1]


def test_the_built_in_parts_come_by_the_entry_point():
    built_in = loaded().plugins[0]
    assert (built_in.name, built_in.target, built_in.problem) == ("mobtk", "mobtk.builtin", None)
    assert {e.package for e in registry()} >= {"mobtk"}


def test_a_good_plugin_adds_its_parts():
    plugins = Loaded()
    plugin = _add(plugins, "acme", _module(lambda registry: registry.backbone("gru", "acme.gru:GRU", "A GRU")))
    assert plugin.problem is None
    assert plugin.parts == 1
    assert plugins.registry.find("backbone", "gru").full_name == "acme.gru"


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (ImportError("no module named foo"), "ImportError: no module named foo"),
        (_module(lambda registry: 1 / 0), "ZeroDivisionError"),
        (_module(lambda registry: registry.backbone("a.b", "x:Y", "")), "without dots"),
        (_module(lambda registry: registry.backbone("a", "x.Y", "")), "module:object"),
        (_module(lambda registry: None, MOBTK_API_VERSION=99), "plugin API 99"),
        (types.ModuleType("empty"), "no mobtk_register hook"),
    ],
)
def test_a_bad_plugin_is_skipped_and_the_others_load(module, problem, capsys):
    plugins = Loaded()
    assert problem in _add(plugins, "bad", module).problem
    assert _add(plugins, "good", _module(lambda registry: registry.router("r", "x:Y", ""))).problem is None
    assert [e.full_name for e in plugins.registry] == ["good.r"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "plugin 'bad' (made-up 1.0) was skipped" in told


def test_a_misspelt_hook_is_told():
    module = types.ModuleType("misspelt")

    @hookimpl
    def mobtk_regster(registry):
        pass

    module.mobtk_regster = mobtk_regster
    assert "mobtk_regster" in _add(Loaded(), "misspelt", module).problem


def test_a_plugin_with_one_bad_part_adds_none():
    def register(registry):
        registry.router("fine", "x:Y", "")
        registry.router("fine", "x:Z", "")

    plugins = Loaded()
    assert "registered twice" in _add(plugins, "half", _module(register)).problem
    assert list(plugins.registry) == []


def test_two_plugins_of_one_name_the_second_is_skipped():
    plugins = Loaded()
    _add(plugins, "acme", _module(lambda registry: registry.router("a", "x:Y", "")))
    assert "another plugin is called 'acme'" in _add(plugins, "acme", _module(lambda r: None)).problem


def test_strict_makes_a_failure_fatal(monkeypatch):
    monkeypatch.setenv("MOBTK_STRICT_PLUGINS", "1")
    with pytest.raises(MobtkError, match="plugin 'bad'"):
        _add(Loaded(), "bad", ImportError("x"))


def test_a_short_name_of_two_packages_wants_the_full_one():
    both = Registry()
    for package in ("a", "b"):
        one = Registry(package)
        one.router("top", "x:Y", "")
        both.merge(one)
    assert both.find("router", "a.top").package == "a"
    with pytest.raises(UnknownPart, match=r"several plugins; say which: a\.top, b\.top"):
        both.find("router", "top")


def test_an_unknown_part_names_a_near_one():
    with pytest.raises(UnknownPart, match="no backbone is called 'mambo'; did you mean 'mamba'"):
        registry().find("backbone", "mambo")


def test_a_single_file_is_a_plugin(tmp_path):
    file = tmp_path / "my_part.py"
    file.write_text(
        "import mobtk\n"
        "@mobtk.hookimpl\n"
        "def mobtk_register(registry):\n"
        "    registry.backbone('mine', 'my_part:Mine', 'My own')\n"
    )
    run = [sys.executable, "-m", "mobtk", "--plugin", str(file), "parts", "backbone"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "my_part" in done.stdout
    assert "My own" in done.stdout
    missing = subprocess.run([*run[:4], "nothing.py", "parts"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


PART = """
import mobtk
from mobtk.contracts import Backbone
from torch import nn

class Mine(Backbone):
    uses_condition = False
    def __init__(self, width, *, depth: int = 1):
        super().__init__()
        self.map = nn.Linear(width, width)
    def forward(self, x, schedule, cond=None, state=None):
        seen = self.map(x).cumsum(1) + (0.0 if state is None else state["sum"])
        if state is not None:
            state["sum"] = seen[:, -1:]
        return seen
    def new_state(self, batch, schedule):
        return {"sum": 0.0}

@mobtk.hookimpl
def mobtk_register(registry):
    registry.backbone("mine", "FILE:Mine", "My own")
"""


def _mobtk(*words, cwd):
    return subprocess.run([sys.executable, "-m", "mobtk", *words], cwd=cwd, capture_output=True, text=True, check=False)


def test_a_run_remembers_the_file_it_was_made_with(tmp_path):
    (tmp_path / "own_part.py").write_text(PART.replace("FILE", "own_part"))
    build = ["build", "tiny", "--weeks", "40", "--backbone", "mine", "-o", "run"]
    made = _mobtk("--plugin", "own_part.py", *build, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    without = _mobtk("train", "run", cwd=tmp_path)
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "run was made with plugin 'own_part'" in without.stderr
    assert f"mobtk --plugin {tmp_path / 'own_part.py'}" in without.stderr
    assert _mobtk("--plugin", "own_part.py", "train", "run", cwd=tmp_path).returncode == 0


def test_plugins_beside_a_run_or_a_dataset_are_found(tmp_path):
    (tmp_path / "work" / "mobtk_plugins").mkdir(parents=True)
    (tmp_path / "work" / "mobtk_plugins" / "beside_part.py").write_text(PART.replace("FILE", "beside_part"))
    assert _mobtk("data", "city", "-o", "work/city", "--weeks", "40", cwd=tmp_path).returncode == 0
    build = ["build", "tiny", "--backbone", "mine", "--data", "work/city"]
    made = _mobtk(*build, "-o", "elsewhere/run", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "beside_part.py" in made.stderr
    lost = _mobtk("train", "elsewhere/run", cwd=tmp_path)
    assert lost.returncode == 2 and "was made with plugin 'beside_part'" in lost.stderr
    assert _mobtk(*build, "-o", "work/run", cwd=tmp_path).returncode == 0
    assert _mobtk("train", "work/run", "--until", "tokenizer", cwd=tmp_path).returncode == 0


def test_what_lies_inside_a_dataset_is_not_run(tmp_path):
    assert _mobtk("data", "city", "-o", "city", "--weeks", "40", cwd=tmp_path).returncode == 0
    (tmp_path / "city" / "mobtk_plugins").mkdir()
    (tmp_path / "city" / "mobtk_plugins" / "evil.py").write_text("raise SystemExit('was run')")
    made = _mobtk("build", "tiny", "--data", "city", "-o", "run", cwd=tmp_path)
    assert made.returncode == 0 and "evil" not in made.stderr


def test_an_old_name_leads_to_the_renamed_part():
    def register(registry):
        registry.backbone("gru", "acme.gru:GRU", "A GRU")
        registry.alias("backbone", "grue", "gru")

    plugins = Loaded()
    assert _add(plugins, "acme", _module(register)).problem is None
    assert plugins.registry.find("backbone", "acme.grue").full_name == "acme.gru"
    assert plugins.registry.find("backbone", "grue").full_name == "acme.gru"
    assert [e.name for e in plugins.registry.entries("backbone")] == ["gru"]


@pytest.mark.parametrize("old", ["gru", "mamba"])
def test_an_old_name_is_neither_a_part_nor_of_nothing(old):
    def register(registry):
        registry.backbone("gru", "acme.gru:GRU", "A GRU")
        registry.alias("backbone", old, "gru" if old == "gru" else "nothing")

    assert "cannot be an old name" in _add(Loaded(), "acme", _module(register)).problem


def test_show_tells_where_a_part_lives_and_what_may_be_chosen():
    (found,) = describe("mamba")
    assert found.name == "mobtk.mamba" and found.contract == "Backbone" and found.licence == "MIT"
    file, _, line = found.place.rpartition(":")
    assert "class Mamba" in Path(file).read_text().splitlines()[int(line)]
    options = {o.name: o for o in found.options}
    assert options["depth"].type == "int" and options["depth"].default == "4" and options["depth"].meaning
    assert found.declares["uses_condition"] is False


def test_every_option_of_our_parts_is_documented():
    bare = [
        f"{d.name}: {o.name}"
        for package in ("mobtk", "mstar", "stm3", "trajfm")
        for d in describe(package)
        for o in d.options
        if not o.meaning
    ]
    assert bare == []


def test_show_of_a_plugin_a_recipe_and_nothing():
    assert len(describe("trajfm")) > 10
    (recipe,) = describe("mobtk.tiny")
    assert "[tokenizer]" in recipe.recipe
    with pytest.raises(MobtkError, match="no plugin or part is called 'nothing'; plugins are mobtk, "):
        describe("nothing")
    assert "mobtk.none" in _mobtk("plugins", "show", "none", cwd=".").stdout


@pytest.mark.slow
def test_workers_have_the_files_too(tmp_path):
    (tmp_path / "own_part.py").write_text(PART.replace("FILE", "own_part"))
    words = ["compare", "tiny", "--vary", "backbone=mine,mamba", "--seeds", "1", "--weeks", "60", "--match", "none"]
    done = _mobtk("--plugin", "own_part.py", *words, "--workers", "2", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout


def test_a_file_that_was_asked_for_and_fails_is_an_error(tmp_path):
    (tmp_path / "broken_part.py").write_text("def broken(:")
    done = _mobtk("--plugin", "broken_part.py", "parts", cwd=tmp_path)
    assert done.returncode == 2 and "broken_part.py was asked for and does not load" in done.stderr
    told = _mobtk("--plugin", "broken_part.py", "plugins", "doctor", cwd=tmp_path)
    assert told.returncode == 1 and "SyntaxError" in told.stdout and "ast.py" not in told.stdout


def test_what_would_fail_in_training_fails_before_anything_is_written(tmp_path):
    bad = PART.replace("FILE", "late_part").replace("self.map(x).cumsum(1)", "self.map(x).nonsense")
    (tmp_path / "late_part.py").write_text(bad)
    words = ["--plugin", "late_part.py", "build", "tiny", "--weeks", "40", "--backbone", "mine", "-o", "run"]
    done = _mobtk(*words, cwd=tmp_path)
    assert done.returncode == 1 and "nonsense" in done.stderr and "before anything is written" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_part_that_leaves_out_a_method_is_told_so(tmp_path):
    (tmp_path / "half_part.py").write_text(PART.replace("FILE", "half_part").replace("def new_state", "def newstate"))
    done = _mobtk("--plugin", "half_part.py", "plugins", "check", "half_part", cwd=tmp_path)
    assert "lacks new_state, which its contract asks for" in done.stdout and done.stdout.count("lacks") == 1


def test_options_may_be_held_to_the_laws(tmp_path):
    fine = _mobtk("plugins", "check", "mobtk.transformer", "--set", "positions=learned", "--set", "heads=2", cwd=tmp_path)
    assert fine.returncode == 0 and "keeps all" in fine.stdout
    wrong = _mobtk("plugins", "check", "mobtk.transformer", "--set", "heads=3", cwd=tmp_path)
    assert wrong.returncode == 1 and wrong.stdout.count("cannot have 3 heads") == 1, wrong.stdout
    assert _mobtk("plugins", "check", "mobtk", "--set", "heads=3", cwd=tmp_path).returncode == 2


def test_hints_carry_the_plugin(tmp_path):
    (tmp_path / "hint_part.py").write_text(PART.replace("FILE", "hint_part"))
    words = ["--plugin", "hint_part.py", "build", "tiny", "--weeks", "40", "--backbone", "mine", "-o", "run"]
    assert "next: mobtk --plugin hint_part.py train run" in _mobtk(*words, cwd=tmp_path).stdout


def test_a_built_in_part_keeps_its_short_name():
    plugins = Loaded()
    for name, package in (("mobtk", "mobtk.x"), ("acme", "acme.x")):
        assert (
            _add(plugins, name, _module(lambda registry, t=package: registry.tokenizer("rvq", f"{t}:Y", ""))).problem is None
        )
    assert plugins.registry.find("tokenizer", "rvq").full_name == "mobtk.rvq"
    assert plugins.registry.find("tokenizer", "acme.rvq").package == "acme"


def test_a_hook_with_another_argument_is_told():
    assert "does not take `registry`" in _add(Loaded(), "acme", _module(lambda reg: None)).problem


def test_what_a_part_prints_or_ends_harms_nobody(tmp_path):
    hook = "import mobtk\n@mobtk.hookimpl\ndef mobtk_register(registry):\n    registry.mask('m', 'TARGET:M', '')\n"
    (tmp_path / "loud_parts.py").write_text("print('hello')\nraise SystemExit('bye')\n")
    (tmp_path / "loud.py").write_text(hook.replace("TARGET", "loud_parts"))
    run = [sys.executable, "-m", "mobtk", "--plugin", "loud.py", "plugins", "doctor", "--json"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    faults = [f["problem"] for f in json.loads(done.stdout)["faults"] if f["what"] == "mask loud.m"]
    assert "ends the program: bye" in faults[0] and "prints 'hello'" in faults[1]


def test_recipes_are_held_to_laws_too(tmp_path):
    (tmp_path / "poor.py").write_text(
        "import mobtk\nfrom mobtk.recipe import Recipe, Part\nBAD = Recipe(backbone=Part('nowhere.x'))\nTHREE = 3\n"
        "@mobtk.hookimpl\ndef mobtk_register(registry):\n    registry.recipe('bad', 'poor:BAD', '')\n"
        "    registry.recipe('three', 'poor:THREE', '')\n"
    )
    checked = _mobtk("--plugin", "poor.py", "plugins", "check", "poor", cwd=tmp_path)
    assert checked.returncode == 1 and "'nowhere', which is not loaded" in checked.stdout
    assert "is no mobtk.recipe.Recipe" in checked.stdout
    doctor = _mobtk("--plugin", "poor.py", "plugins", "doctor", cwd=tmp_path)
    assert doctor.returncode == 1 and doctor.stdout.count("recipe poor.") == 2
    built = _mobtk("--plugin", "poor.py", "build", "poor.three", "-o", "run", cwd=tmp_path)
    assert built.returncode == 2 and built.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "told"), [("json.py", "another module is called 'json'"), ("a.b.py", "is no name of a module")]
)
def test_files_beside_that_cannot_be_loaded_are_skipped_in_a_line(tmp_path, name, told):
    (tmp_path / "mobtk_plugins").mkdir()
    (tmp_path / "mobtk_plugins" / name).write_text("")
    done = _mobtk("build", "tiny", "--weeks", "40", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0 and told in done.stderr


@pytest.mark.parametrize("line", ["MOBTK_API_VERSION: int = 99", "MOBTK_API_VERSION = 99"])
def test_the_api_number_is_read_before_the_file_is_run(tmp_path, line):
    (tmp_path / "later_part.py").write_text(f"{line}\nraise RuntimeError('was run')\n")
    plugins = Loaded()
    plugins.add_file(tmp_path / "later_part.py")
    assert "plugin API 99" in plugins.plugins[0].problem
