"""Comparisons: valid combinations at equal size, seeds, and going on after an interruption."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import mobtk
from mobtk import comparing
from mobtk.cli import cli
from mobtk.errors import BadInput

VARY = {"backbone": ["transformer", "mamba"], "tokenizer": ["rvq", "cells"]}
QUICK = {"training.tokenizer.epochs": 0.5, "training.generator.epochs": 0.5, "width": 32}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "out"
    return out, mobtk.compare("tiny", VARY, seeds=2, out=out, weeks=200, changes=QUICK)


def test_all_combinations_at_equal_size_with_their_spread(compared):
    _, result = compared
    assert len(result["rows"]) == 4 and all(len(row["scores"]) == 2 and row["std"] is not None for row in result["rows"])
    sizes = [row["parameters"] for row in result["rows"]]
    assert max(sizes) < 1.15 * min(sizes), sizes
    assert len({row["width"] for row in result["rows"]}) > 1
    assert [row["mean"] for row in result["rows"]] == sorted(row["mean"] for row in result["rows"])
    assert {"floor", "Markov"} <= set(result["beside"])


def test_a_part_that_the_recipe_has_keeps_its_options(compared):
    out, _ = compared
    run = mobtk.Run(next((out / "runs").glob("*transformer-tokenizer-rvq-0")))
    assert run.recipe.tokenizer.options["codes"] == 64 and run.recipe.backbone.options == {"depth": 1, "heads": 2}


def test_it_goes_on_where_it_was(compared):
    out, result = compared
    lost = sorted((out / "scores").glob("*.json"))[0]
    score = json.loads(lost.read_text())
    lost.unlink()
    again = mobtk.compare("tiny", VARY, seeds=2, out=out, weeks=200, changes=QUICK)
    assert json.loads(lost.read_text())["sources"] == score["sources"]
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in result["rows"]]


def test_a_folder_of_another_comparison_is_refused(compared, tmp_path):
    out, _ = compared
    with pytest.raises(BadInput, match="holds another comparison"):
        mobtk.compare("tiny", VARY, seeds=3, out=out, weeks=200, changes=QUICK)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds other things"):
        mobtk.compare("tiny", VARY, out=tmp_path, weeks=200)


def test_maps_that_differ_have_data_and_a_floor_of_their_own(tmp_path):
    vary = {"mapper.size": [1000.0, 3000.0]}
    changes = {**QUICK, "tokenizer": "cells"}
    result = mobtk.compare("tiny", vary, match="none", seeds=1, out=tmp_path / "out", weeks=200, changes=changes)
    one, other = result["rows"]
    assert one["beside"]["floor"] != other["beside"]["floor"] and one["parameters"] != other["parameters"]
    assert "floor" in comparing.table(result).splitlines()[2] and not result["beside"]


def test_lists_may_be_varied_and_a_mistake_does_not_keep_the_folder(tmp_path):
    words = ["compare", "tiny", "--weeks", "60", "--seeds", "1", "--match", "none", "-o", str(tmp_path / "out")]
    quick = [f"--set={k}={v}" for k, v in QUICK.items()]
    wrong = CliRunner().invoke(cli, [*words, *quick, "--vary", "tokenizer.lengths=[[0],[200]]"])
    assert "no combination is valid" in str(wrong.exception)
    words[words.index("60")] = "80"
    right = CliRunner().invoke(
        cli, [*words, *quick, "--vary", "tokenizer.lengths=[[1,7,168],[1,168]]"], catch_exceptions=False
    )
    assert right.exit_code == 0 and "[1, 168]" in right.output
    run = mobtk.Run(next((tmp_path / "out" / "runs").iterdir()))
    assert len(run.dataset()) == 80, "the data of the mistaken try were taken"


def test_the_verdict_does_not_overclaim():
    def row(name, scores):
        std = float(np.std(scores, ddof=1))
        return {
            "choice": {"a": name},
            "mean": float(np.mean(scores)),
            "std": std,
            "scores": scores,
            "parameters": 1,
            "flop": 1,
        }

    close = comparing._verdict([row("x", [1.0, 1.1, 1.2]), row("y", [1.1, 1.2, 1.4])], "none")
    assert "may be chance" in close
    apart = comparing._verdict([row("x", [1.0, 1.01, 1.02]), row("y", [2.0, 2.01, 2.02])], "none")
    assert "seeds do not explain" in apart
    nothing = comparing._verdict([row("x", [1.0, 1.1]), row("y", [float("nan"), 1.0])], "none")
    assert nothing.startswith("a=y came to nothing")


def test_the_table_and_the_picture(compared):
    out, result = compared
    told = comparing.table(result)
    assert told.count("\n") > 8 and "beside: floor" in told and result["verdict"] in told
    assert (out / "comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    vary = {"mapper": ["grid", "polygons"], "tokenizer": ["cells", "points"]}
    result = mobtk.compare("tiny", vary, match="none", seeds=1, out=tmp_path / "out", weeks=60, changes=QUICK)
    assert [row["choice"] for row in result["rows"]] == [{"mapper": "grid", "tokenizer": "cells"}]
    assert len(result["left_out"]) == 3 and any("does not read sequences" in case["why"] for case in result["left_out"])
    assert "one valid combination only" in result["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["forecaster", "completer"])
def test_every_task_on_several_workers_and_at_equal_compute(recipe, tmp_path):
    changes = {"width": 16, "training.forecaster.epochs": 0.2, "forecast.history": 24} if recipe == "forecaster" else {
        "width": 16, "training.completer.epochs": 0.2}  # fmt: skip
    vary = {"backbone": ["transformer", "gpt2"]}
    result = mobtk.compare(
        recipe, vary, match="compute", seeds=2, out=tmp_path / "out", weeks=100, changes=changes, workers=2
    )
    assert [len(row["scores"]) for row in result["rows"]] == [2, 2]
    assert result["beside"]


def test_bad_input_is_one_sentence(tmp_path):
    out = str(tmp_path / "out")
    for words, told in (
        (["--vary", "backbone"], "not of the form key=one,other"),
        (["--vary", "backbone=mamba", "--seeds", "0"], "seeds is at least 1"),
        (["--vary", "nothing.at.all=1"], "no combination is valid"),
        (["--vary", "backbone=transfomer,mamba"], "did you mean 'transformer'"),
        (["--vary", "training.seed=1,2"], "seeds are varied by --seeds"),
        (["--vary", "width=16,32"], "--match none"),
    ):
        done = CliRunner().invoke(cli, ["compare", "tiny", "--weeks", "40", "-o", out, *words])
        assert done.exit_code != 0 and told in str(done.exception), done.exception
    assert not (tmp_path / "out" / "scores").exists()
