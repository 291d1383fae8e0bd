import subprocess
import sys
import types

import pytest

from mobtk import hookimpl
from mobtk.errors import MobtkError, UnknownPart
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
