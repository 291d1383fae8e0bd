"""Bad plugins harm nobody: each of these is installed by pip and tried in a process of its own."""

import json

import pytest
from sandbox import Environment, package

HOOK = "import mobtk\n{before}\n@mobtk.hookimpl\ndef mobtk_register(registry):\n    {body}\n"


def _hook(body="registry.router('r', 'x:Y', '')", before=""):
    return HOOK.format(before=before, body=body)


GOOD = _hook("registry.backbone('average', 'good_parts:Average', 'A good one')")
PART = """
from typing import ClassVar
import torch
from mobtk.contracts import Backbone
class Average(Backbone):
    "The mean so far."
    uses_condition: ClassVar[bool] = False
    def __init__(self, width, *, depth: int = 1):
        super().__init__()
        self.map = torch.nn.Linear(width, width)
    def forward(self, x, schedule, cond=None, state=None):
        seen = self.map(x).cumsum(1)
        if state is not None:
            seen = seen + state["sum"]
            state["sum"] = seen[:, -1:]
        return seen
    def new_state(self, batch, schedule):
        return {"sum": 0.0}
"""
RAISES = PART.replace("super().__init__()", "super().__init__()\n        self.nothing.at_all")

BAD = {
    "no-import": ({"code": "import a_package_that_is_not\n" + GOOD}, "No module named 'a_package_that_is_not'"),
    "raises": ({"code": _hook("registry.router('a', 'x:Y', ''); 1 / 0")}, "ZeroDivisionError: division by zero"),
    "misspelt": ({"code": _hook().replace("mobtk_register", "mobtk_regsiter")}, "mobtk_regsiter"),
    "undecorated": ({"code": _hook().replace("@mobtk.hookimpl", "")}, "decorate it with @mobtk.hookimpl"),
    "same-part": ({"code": _hook("[registry.router('twice', 'x:Y', '') for _ in range(2)]")}, "is registered twice"),
    "future": ({"code": "MOBTK_API_VERSION = 99\nexit()\n"}, "plugin API 99, this mobtk has 1; update m"),
    "past": ({"code": "MOBTK_API_VERSION = 0\nexit()\n"}, "plugin API 0, this mobtk has 1; update the"),
    "newer-mobtk": ({"code": "exit()\n", "needs": "mobtk>=99"}, "it wants mobtk >=99, and this is"),
    "older-mobtk": ({"code": "exit()\n", "needs": "mobtk<0.0.1"}, "it wants mobtk <0.0.1, and this is"),
    "exits": ({"code": "raise SystemExit('good bye')\n"}, "SystemExit: good bye"),
    "syntax": ({"code": "def broken(:\n"}, "SyntaxError"),
}  # fmt: skip
LATE = {
    "unsigned": {"code": _hook("registry.backbone('lies', 'unsigned:dict', '')", "dict = dict")},
    "nowhere": {"code": _hook("registry.backbone('gone', 'nowhere_at_all:Gone', '')")},
    "constructor": {"code": _hook("registry.backbone('stumbles', 'stumbling:Average', '')"), "more": {"stumbling": RAISES}},
    "loud": {"code": _hook(before="print('hello from me')")},
    "rude": {
        "code": _hook(before="import os, warnings, torch; os.environ['RUDE'] = '1'; torch.set_default_dtype(torch.float64); "
                          "warnings.simplefilter('ignore')")
    },
    "slow": {"code": _hook(before="import time; time.sleep(5)")},
}  # fmt: skip


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """All of them in one environment, and a good one among them; and two distributions with one entry-point name."""
    folder = tmp_path_factory.mktemp("plugins")
    env = Environment(folder / "env")
    homes = [package(folder, name, **how) for name, (how, _) in BAD.items()]
    homes += [package(folder, name, **how) for name, how in LATE.items()]
    homes.append(package(folder, "good", GOOD, more={"good_parts": PART}))
    homes += [package(folder, f"twin-{x}", _hook(f"registry.router('{x}', 'x:Y', '')"), point="twin") for x in "ab"]
    env.install(*homes)
    return env


@pytest.fixture(scope="module")
def listed(env):
    done = env.mobtk("plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {p["origin"]: p for p in json.loads(done.stdout)}, done.stderr


@pytest.fixture(scope="module")
def doctor(env):
    done = env.mobtk("plugins", "doctor", "--json")
    assert done.returncode == 1
    return json.loads(done.stdout)["faults"]


@pytest.mark.parametrize("name", BAD)
def test_it_is_skipped_whole_and_told_in_one_line(listed, doctor, name):
    plugins, told = listed
    problem = BAD[name][1]
    assert problem in plugins[f"{name} 1.0"]["problem"]
    assert plugins[f"{name} 1.0"]["parts"] == 0
    assert sum(f"plugin {name!r}" in line for line in told.splitlines()) == 1
    assert any(f["what"] == f"plugin {name} ({name} 1.0)" and problem in f["problem"] for f in doctor)


def test_what_is_good_works_beside_them(env, listed):
    plugins, _ = listed
    assert plugins["good 1.0"] | {"seconds": 0} == {
        "name": "good", "origin": "good 1.0", "target": "good", "licence": "MIT", "seconds": 0, "problem": None, "trace": "",
        "notes": [], "parts": 1,
    }  # fmt: skip
    done = env.mobtk("plugins", "check", "good")
    assert "keeps" in done.stdout, done.stdout


def test_of_two_with_one_name_the_second_is_skipped(listed):
    plugins, _ = listed
    assert plugins["twin-a 1.0"]["problem"] is None
    assert "another plugin is called 'twin' (twin-a 1.0)" in plugins["twin-b 1.0"]["problem"]


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("backbone unsigned.lies", "is no mobtk.contracts.Backbone"),
        ("backbone nowhere.gone", "No module named 'nowhere_at_all'"),
        ("plugin loud (loud 1.0)", "its import prints 'hello from me'"),
        ("plugin rude (rude 1.0)", "its import changes environment variables"),
        ("plugin rude (rude 1.0)", "its import changes torch's default type"),
        ("plugin rude (rude 1.0)", "its import filters every warning"),
        ("plugin slow (slow 1.0)", "its import takes 5."),
    ],
)
def test_the_doctor_names_it(doctor, what, problem):
    assert any(f["what"] == what and problem in f["problem"] for f in doctor), doctor


def test_the_doctor_shows_the_stack_of_the_plugin_only(doctor):
    trace = next(f["trace"] for f in doctor if f["what"].startswith("plugin raises "))
    assert "1 / 0" in trace and "raises.py" in trace and "pluggy" not in trace


def test_what_an_import_changed_is_put_back(env):
    ask = "import os, mobtk.plugins, torch; mobtk.plugins.loaded(); print(os.environ.get('RUDE'), torch.get_default_dtype())"
    assert env.run("-c", ask, MOBTK_PLUGINS="rude").stdout.split() == ["None", "torch.float32"]


def test_a_constructor_that_raises_shows_its_own_stack(env, tmp_path):
    words = ["build", "tiny", "--weeks", "20", "--backbone", "stumbles", "-o", str(tmp_path / "run")]
    done = env.mobtk(*words, MOBTK_PLUGINS="constructor")
    assert done.returncode == 1
    assert "self.nothing.at_all" in done.stderr and "while backbone 'stumbles' was made" in done.stderr
    assert not (tmp_path / "run").exists()
    verdicts = json.loads(env.mobtk("plugins", "check", "constructor", "--json", MOBTK_PLUGINS="constructor").stdout)
    broken = [v for v in verdicts if v["problem"]]
    assert all("has no attribute 'nothing'" in v["problem"] and "stumbling.py" in v["where"] for v in broken) and broken


def test_loading_can_be_restricted_and_strict(env):
    few = json.loads(env.mobtk("plugins", "list", "--json", MOBTK_PLUGINS="good").stdout)
    assert [p["name"] for p in few] == ["mobtk", "good"]
    done = env.mobtk("plugins", "list", MOBTK_PLUGINS="raises", MOBTK_STRICT_PLUGINS="1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_help_needs_no_plugin(env):
    """With all of these installed, help costs what it costs without: it loads none."""
    ask = "import sys; from mobtk.cli import main; sys.argv = ['mobtk', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    done = env.run("-c", ask + "print([m for m in ('torch', 'numpy', 'pluggy', 'good') if m in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]"
