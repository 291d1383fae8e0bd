"""What a model is made of, told from the model itself."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

import mobtk
from mobtk import explaining
from mobtk.errors import BadInput
from mobtk.plugins import registry


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each task, and one with experts."""
    folder = tmp_path_factory.mktemp("runs")
    more = {"experts": 3, "router": "entity"}
    return {
        "generate": mobtk.build("tiny", folder / "generate", weeks=40),
        "hourly": mobtk.build("autoregressive", folder / "hourly", weeks=40, changes={"width": 16}),
        "mamba": mobtk.build("autoregressive", folder / "mamba", weeks=40, changes={"width": 16, "backbone": "mamba"}),
        "routed": mobtk.build("tiny", folder / "routed", weeks=40, changes=more),
        "forecast": mobtk.build("forecaster", folder / "forecast", weeks=60, changes={"forecast.history": 24, **more}),
        "complete": mobtk.build("completer", folder / "complete", weeks=40),
    }


def _model(run):
    return {"generate": run.model, "forecast": run.forecaster, "complete": run.completer}[run.recipe.task]()


@pytest.mark.parametrize("name", ["generate", "hourly", "routed", "forecast", "complete"])
def test_every_parameter_is_in_one_box(runs, name):
    flow = explaining.explain(runs[name])
    assert sum(box.parameters for box in flow.boxes) == sum(p.numel() for p in _model(runs[name]).parameters())


def test_shapes_follow_each_other(runs):
    for run in runs.values():
        row = [b for b in explaining.explain(run).boxes if b.name not in explaining.explain(run).aside]
        backbone = next(i for i, b in enumerate(row) if b.name.startswith("backbone"))
        assert row[backbone].given.startswith("(") and row[backbone].given == row[backbone].gives


def test_what_attention_keeps_grows_and_what_mamba_keeps_does_not(runs):
    state = {}
    for name in ("hourly", "mamba"):
        boxes = {b.name: b for b in explaining.explain(runs[name]).boxes}
        state[name] = boxes["backbone"].state
    depth, width, steps = 4, 16, 168
    assert state["hourly"] == 2 * depth * steps * width * 4
    assert 0 < state["mamba"] < state["hourly"]


def test_matrix_products_are_counted(runs):
    boxes = {b.name: b for b in explaining.explain(runs["hourly"]).boxes}
    assert boxes["head"].flop == 2 * 168 * 16 * runs["hourly"].data["mapper"]["config"]["shape"][0] * 30


def test_attention_and_scans_are_counted(runs):
    """Of a block: queries, keys, values and what comes of them; scores and their use; the feed-forward layer."""
    length, width, depth = 168, 16, 4
    boxes = {name: {b.name: b for b in explaining.explain(runs[name]).boxes} for name in ("hourly", "mamba")}
    linear, attention = 2 * length * (4 * width**2 + 8 * width**2), 2 * 2 * length**2 * width
    assert boxes["hourly"]["backbone"].flop == depth * (linear + attention)
    inner, state = 2 * width, 16
    assert boxes["mamba"]["backbone"].flop > depth * 9 * length * inner * state


def test_a_run_takes_no_settings(runs, tmp_path):
    with pytest.raises(BadInput, match="is a run, whose data and settings are made"):
        explaining.explain(runs["hourly"], changes={"width": 8})


def test_forms(runs, tmp_path):
    flow = explaining.explain(runs["routed"])
    told = explaining.text(flow)
    assert "router mobtk.entity (mobtk 0.1.0)" in told and "in all:" in told
    chart = explaining.mermaid(flow)
    assert chart.startswith("flowchart TD") and chart.count("-->") == len(flow.boxes) - 1
    explaining.svg(flow, tmp_path / "model.svg")
    words = "".join(ElementTree.parse(tmp_path / "model.svg").getroot().itertext())
    assert all(box.says in words for box in flow.boxes)


def test_the_command(tmp_path):
    mobtk_ = [sys.executable, "-m", "mobtk", "-q", "explain"]
    told = subprocess.run([*mobtk_, "completer", "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["task"] == "complete"
    out = tmp_path / "model.mmd"
    subprocess.run([*mobtk_, "completer", "--set", "backbone=gpt2", "-o", str(out)], check=True, capture_output=True)
    assert "mobtk.gpt2" in out.read_text()
    lost = subprocess.run([*mobtk_, "completer", "--format", "svg"], capture_output=True, text=True, check=False)
    assert lost.returncode == 2 and "-o model.svg" in lost.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [e.full_name for e in registry().entries("recipe")])
def test_every_recipe_is_explained(name):
    assert len(explaining.explain(name).boxes) > 4
