import numpy as np
import pytest

import mobtk
from mobtk.baselines import fit_baselines
from mobtk.errors import BadInput
from mobtk.evaluation import FIDELITY, compare, table


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return mobtk.prepare_city(tmp_path_factory.mktemp("town") / "town", weeks=800)


def test_real_people_score_at_the_floor(town):
    real = town.cells[town.rows("train")].astype(np.int64)
    scores = compare(town, {"real": real}, repeats=4)["scores"]
    for key in FIDELITY:
        floor, score = scores["floor"][key], scores["real"][key]
        assert score["mean"] == pytest.approx(floor["mean"], rel=0.5, abs=4 * (floor["std"] + score["std"]) + 1e-3)


def test_scores_tell_good_from_bad(town):
    rng = np.random.default_rng(0)
    noise = rng.integers(900, size=(400, 168))
    result = compare(town, {"noise": noise}, repeats=2)
    scores = result["scores"]
    for key in ("distance", "radius", "duration", "dailyloc"):
        assert scores["noise"][key]["mean"] > 4 * scores["floor"][key]["mean"]
    # what each baseline is blind to: the chain to hours, the hours to one another
    assert scores["Markov"]["distance"]["mean"] < scores["time of day"]["distance"]["mean"]
    assert scores["Markov"]["duration"]["mean"] > 3 * scores["floor"]["duration"]["mean"]
    assert set(scores) == {"floor", "noise", "Markov", "time of day", "EPR"}
    assert result["n"] == 160
    text = table(result)
    assert all(word in text for word in ("Distance", "DailyLoc", "Flow MAPE", "floor", "EPR"))


def test_published_metrics_have_the_published_floor(town):
    """At 500 weeks the authors' functions give about .13 for Radius between two samples of one simulator."""
    scores = compare(town, {}, repeats=2, baselines=False, published=True)["scores"]["floor"]
    assert set(scores) == {"distance", "radius", "duration", "dailyloc", "density", "flow"}
    assert 0.05 < scores["radius"]["mean"] < 0.5


def test_more_than_there_is_is_refused(town):
    with pytest.raises(BadInput, match="n=5000 is more than there is.*use at most"):
        compare(town, {}, n=5000)


@pytest.mark.parametrize("name", ["Markov", "time of day", "EPR"])
def test_baselines_visit_existing_cells_and_learn_from_training_people_only(town, name):
    cells = fit_baselines(town)[name].sample(200, np.random.default_rng(0))
    assert cells.shape == (200, 168)
    assert cells.min() >= 0 and cells.max() < 900
    if name != "EPR":
        train = set(np.unique(town.cells[town.rows("train")]))
        assert set(np.unique(cells)) <= train


def test_markov_transitions_are_those_of_the_person():
    cells = np.array([[0, 1, 0, 1], [5, 6, 5, 6]])
    from mobtk.baselines.markov import MarkovChains

    drawn = MarkovChains(cells, np.array(["a", "b"]), 10).sample(50, np.random.default_rng(0))
    assert {tuple(row) for row in drawn.tolist()} == {(0, 1, 0, 1), (5, 6, 5, 6)}


def test_time_of_day_keeps_the_hours_of_the_person():
    from mobtk.baselines.time_of_day import TimeOfDay

    cells = np.array([[1, 2, 1, 2], [3, 4, 3, 4]])
    drawn = TimeOfDay(cells, np.array(["a", "b"]), 2).sample(50, np.random.default_rng(0))
    assert {tuple(row) for row in drawn.tolist()} == {(1, 2, 1, 2), (3, 4, 3, 4)}


def test_evaluate_writes_a_result_with_cards(trained):
    mobtk.generate(trained, 60, replace=True)
    result = mobtk.evaluate(trained, repeats=2)
    assert (trained.path / "results" / "fidelity.json").is_file()
    assert set(result["cards"]) == set(FIDELITY)
    published = mobtk.evaluate(trained, repeats=1, published=True, baselines=False)
    assert published["published"] is True


def test_next_place_of_people_who_alternate_is_foretold(tmp_path):
    """Everybody goes to and fro between two places of their own: a chain knows it, and a model learns it."""
    import pandas as pd

    rows = [(f"u{u}", 3600 * i, 52.5 + 0.01 * (2 * u + i % 2), 13.3) for u in range(8) for i in range(64)]
    pd.DataFrame(rows, columns=["user", "time", "lat", "lon"]).to_parquet(tmp_path / "p.parquet")
    dataset = mobtk.prepare(
        tmp_path / "p.parquet", tmp_path / "d", time_unit="s", mapper="places", step="event", period="7", split="time"
    )
    changes = {"tokenizer": "cells", "traits": ["person"], "width": 32}
    changes |= {f"training.generator.{k}": v for k, v in {"epochs": 60, "batch": 8, "patience": 60}.items()}
    run = mobtk.train(mobtk.build("tiny", tmp_path / "r", data=dataset.path, changes=changes))
    scores = mobtk.evaluate_next_place(run)["scores"]
    assert scores["Markov"]["acc@1"] == 1
    assert scores["user frequency"]["acc@1"] == pytest.approx(0.5, abs=0.2)
    assert scores["user frequency"]["acc@5"] == 1
    assert scores["model"]["acc@1"] > 0.9


def test_a_model_that_does_not_go_step_by_step_has_no_next_place(trained):
    with pytest.raises(BadInput, match="does not decide one step after the other.*--tokenizer cells"):
        mobtk.evaluate_next_place(trained)
