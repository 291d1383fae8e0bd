"""Pages are whole by themselves and say what is in the results."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import mobtk
from mobtk.cli import cli
from mobtk.errors import BadInput
from mobtk.report.run import run_page


@pytest.fixture(scope="module")
def page(scored, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    run_page(scored, out)
    return out.read_text(encoding="utf-8")


def test_it_needs_no_network_and_is_small(page):
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#s\d)', page)
    assert "<script" not in page and "@import" not in page
    assert len(page) < 2_000_000


def test_every_picture_says_what_it_shows(page):
    said = re.findall(r'<img src="data:[^"]+" alt="([^"]*)"', page)
    assert len(said) > 6 and all(said)


def test_scores_stand_beside_their_floor_and_baselines(scored, page):
    scores = json.loads((scored.path / "results" / "fidelity.json").read_text())["scores"]
    for source in scores:
        assert f'<th scope="col">{source}</th>' in page
    model = scores["model"]["radius"]
    assert f"{model['mean']:.3g} ± {model['std']:.2g}" in page


def test_it_says_how_it_was_made_and_what_was_not_done(scored, page):
    assert f"mobtk evaluate {scored.path}" in page and "mobtk.rvq" in page and "It was not audited" in page


def test_what_cannot_be_reported_is_told(scored, tmp_path):
    fresh = mobtk.build("tiny", tmp_path / "fresh", weeks=40)
    with pytest.raises(BadInput, match="has generated nothing to report on; mobtk generate"):
        run_page(fresh, tmp_path / "page.html")
    done = CliRunner().invoke(cli, ["report", str(scored.path), "-o", str(tmp_path / "page.txt")])
    assert "a page ends in .html" in str(done.exception)


def test_the_command_for_a_dataset(scored, tmp_path):
    out = tmp_path / "data.html"
    done = CliRunner().invoke(cli, ["report", str(scored.path / "data"), "-o", str(out)], catch_exceptions=False)
    assert done.exit_code == 0 and "Funnel" in out.read_text(encoding="utf-8")


def _page(run, out):
    mobtk.generate(mobtk.train(run), 60)
    mobtk.evaluate(run)
    run_page(run, out)
    return out.read_text(encoding="utf-8")


def test_experts_are_told(tmp_path):
    changes = {"router": "entity", "experts": 3}
    told = _page(mobtk.build("tiny", tmp_path / "run", weeks=300, changes=changes), tmp_path / "page.html")
    shares = re.search(r"of 3 experts serve people, in shares of ([^<.]+)", told)[1]
    assert sum(int(share.rstrip("%")) for share in shares.split(", ")) == pytest.approx(100, abs=2)


def test_events_have_no_hours(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", 3600 * i, 52.5 + 0.01 * rng.integers(6), 13.3) for u in range(60) for i in range(16)]
    pd.DataFrame(rows, columns=["user", "time", "lat", "lon"]).to_parquet(tmp_path / "p.parquet")
    data = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", time_unit="s", mapper="places", step="event", period="8",
                         shares=(0.4, 0.1, 0.5))  # fmt: skip
    told = _page(
        mobtk.build("tiny", tmp_path / "run", data=data.path, changes={"tokenizer": "cells"}), tmp_path / "page.html"
    )
    assert "clock" not in told and "Times of the day" not in told and "how long people stay" in told


def test_the_page_of_a_forecaster(tmp_path):
    changes = {"forecast.history": 24, "forecast.horizon": 6, "training.forecaster.epochs": 0.5}
    run = mobtk.train(mobtk.build("forecaster", tmp_path / "run", weeks=100, changes=changes))
    with pytest.raises(BadInput, match="was not evaluated; mobtk evaluate"):
        run_page(run, tmp_path / "page.html")
    result = mobtk.evaluate_forecaster(run)
    model = np.array(result["by_node"]["model"])
    assert len(model) == len(run.data["nodes"]) and np.nanmean(model) == pytest.approx(
        result["scores"]["model"]["mae"], rel=1e-3
    )
    run_page(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img") >= 3 and f"{result['scores']['model']['mae']:.4g}" in page
    assert run.data["nodes"][int(np.nanargmax(model))] in page
    assert "on the map" in page


def test_the_page_of_a_completer(tmp_path):
    run = mobtk.train(
        mobtk.build("completer", tmp_path / "run", weeks=60, changes={"width": 16, "training.completer.epochs": 1})
    )
    result = mobtk.evaluate_completer(run, n=20)
    run_page(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for mask, scores in result["scores"].items():
        assert f"What {mask} hides" in page and all(f"<td>{source}</td>" in page for source in scores)
    assert page.count("<img") >= 1 and "the best baseline" in page
