import json

import numpy as np
import pytest

import mobtk
from mobtk.baselines import fit_baselines
from mobtk.errors import BadInput
from mobtk.evaluation import FIDELITY, _Events, _known_traits, compare, table
from mobtk.storage import to_json


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
    scores = compare(town, {}, repeats=2, baselines=False, task="published")["scores"]["floor"]
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
    published = mobtk.evaluate(trained, repeats=1, task="published", baselines=False)
    assert published["task"] == "published"


def test_next_place_of_people_who_alternate_is_foretold(tmp_path):
    """Everybody goes to and fro between two places of their own: a chain knows it, and a model learns it."""
    import pandas as pd

    rows = [(f"u{u}", 3600 * i, 52.5 + 0.01 * (2 * u + i % 2), 13.3) for u in range(8) for i in range(64)]
    pd.DataFrame(rows, columns=["user", "time", "lat", "lon"]).to_parquet(tmp_path / "p.parquet")
    dataset = mobtk.prepare(
        tmp_path / "p.parquet", tmp_path / "d", time_unit="s", mapper="places", step="event", period="7", split="time"
    )
    changes = {"tokenizer": "cells", "traits": ["person"], "width": 32, "training.seed": 1}
    changes |= {f"training.generator.{k}": v for k, v in {"epochs": 100, "batch": 8, "patience": 100}.items()}
    run = mobtk.train(mobtk.build("tiny", tmp_path / "r", data=dataset.path, changes=changes))
    scores = mobtk.evaluate_next_place(run)["scores"]
    assert scores["Markov"]["acc@1"] == 1
    assert scores["user frequency"]["acc@1"] == pytest.approx(0.5, abs=0.2)
    assert scores["user frequency"]["acc@5"] == 1
    assert scores["model"]["acc@1"] > 0.9


def test_a_model_that_does_not_go_step_by_step_has_no_next_place(trained):
    with pytest.raises(BadInput, match="does not decide one step after the other.*--tokenizer cells"):
        mobtk.evaluate_next_place(trained)


def _visits(tmp_path, **options):
    """Three users, 40 visits each, an hour apart, to a place of their own and, from the 20th on, another."""
    import pandas as pd

    rows = [(f"u{u}", 3600 * i, 52.5 + 0.01 * (2 * u + (i >= 20)), 13.3) for u in range(3) for i in range(40)]
    pd.DataFrame(rows, columns=["user", "time", "lat", "lon"]).to_parquet(tmp_path / "p.parquet")
    return mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", time_unit="s", mapper="places", split="time", **options)


def test_visits_before_the_cut_are_read_and_not_scored(tmp_path):
    dataset = _visits(tmp_path, step="event", period="8", shares=(0.5, 0.2, 0.3))
    events = _Events(dataset, "test")
    moments = np.sort(dataset.moments().reshape(3, -1), axis=1)
    assert len(events.target) == (moments > dataset.info.cuts[1]).sum()
    windows, position = events.windows(np.arange(len(events.at)))
    assert (position == 7).all()
    assert (windows[:, -1] == events.target).all()


def test_regular_steps_are_foretold_at_their_own_hour_from_their_own_sequence(city):
    events = _Events(city, "test")
    index = np.arange(len(events.at))
    windows, position = events.windows(index)
    rows = city.cells[events.row]
    assert set(position) == set(range(1, 168))
    assert len(index) == 167 * len(city.rows("test"))
    for i in index[:: max(1, len(index) // 50)]:
        assert windows[i, position[i]] == rows[i, position[i]] == events.target[i]
        assert (windows[i, : position[i]] == rows[i, : position[i]]).all()


def test_traits_are_those_known_from_training(tmp_path, city):
    dataset = _visits(tmp_path, step="event", period="8", shares=(0.5, 0.2, 0.3))
    test = dataset.rows("test")
    own, known = dataset.traits(["home"])[test, 0], _known_traits(dataset, ["home"])[test, 0]
    assert (own != known).all(), "by then they live elsewhere, which is not to be known"
    assert (_known_traits(city, ["home", "person"])[city.rows("test")] == -1).all(), "people nobody has seen"


def test_what_is_not_defined_is_null_in_json(tmp_path):
    assert json.loads(to_json({"flow": float("nan"), "n": np.int64(3), "x": np.float32(0.5)})) == {
        "flow": None,
        "n": 3,
        "x": 0.5,
    }


def test_an_epr_person_explores_only_new_cells_and_returns_elsewhere(city):
    from mobtk.baselines.epr import ExplorationAndReturn

    drawn = ExplorationAndReturn(city.cells.astype(np.int64), city.mapper()).sample(200, np.random.default_rng(0))
    moves = (drawn[:, 1:] != drawn[:, :-1]).sum() / (200 * 7)
    real = (city.cells[:, 1:] != city.cells[:, :-1]).sum() / (len(city) * 7)
    assert moves == pytest.approx(real, rel=0.1)


def test_an_epidemic_follows_who_meets_whom():
    from mobtk.metrics.epidemic import Disease, seir

    together, apart = np.zeros((400, 24), int), np.arange(400)[:, None] + np.zeros((400, 24), int)
    flu = Disease(reproduction=2.5)
    course = seir(together, 24, days=100, disease=flu)
    first = Disease().first * 400
    assert 0.15 < course.max() < 0.6 and 10 < course.argmax() < 70 and course[-1] < course.max() / 3
    alone = seir(apart, 24, days=100)
    assert alone.max() <= max(5, first) / 400 and alone[-1] < 0.002, "who meets nobody infects nobody"
    assert seir(together, 24, days=100, disease=Disease(reproduction=0.5)).max() < 0.05
    assert np.array_equal(course, seir(together, 24, days=100, disease=flu)), "the same seed gives the same course"


def test_the_size_of_an_epidemic_is_that_of_theory():
    """Everybody in one place: the share that is ever infected solves z = 1 - exp(-R z)."""
    from mobtk.metrics.epidemic import Disease, seir

    disease = Disease(reproduction=2.5)
    course = seir(np.zeros((3000, 24), int), 24, days=200, repeats=3, disease=disease)
    ever = course.sum() / (disease.latent + disease.infectious)  # everybody is active for that many days
    z = 0.9
    for _ in range(50):
        z = 1 - np.exp(-disease.reproduction * z)
    assert abs(ever - z) < 0.06


def test_epidemic_scores_beside_floor_and_baselines(town):
    wrong = town.cells[town.rows("train")][:, ::-1] * 0 + np.arange(len(town.rows("train")))[:, None] % 900
    scores = compare(town, {"apart": wrong}, repeats=2, task="epidemic")["scores"]
    assert scores["apart"]["active"]["mean"] > scores["floor"]["active"]["mean"]
    assert set(scores["floor"]) == {"active", "peak_day", "peak_height"} and "Markov" in scores
    with pytest.raises(BadInput, match="not one of fidelity, published, epidemic"):
        compare(town, {}, task="weather")


def test_usefulness_is_one_where_the_generated_are_the_real(trained, tmp_path):
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    from mobtk.data.dataset import fixed_list
    from mobtk.usefulness import _foretell, usefulness

    dataset = trained.dataset()
    about = {b"mobtk": json.dumps({"mapper": dataset.mapper_spec}).encode()}
    file = tmp_path / "same.parquet"
    cells = dataset.cells[dataset.rows("train")].astype(np.int64)
    pq.write_table(pa.table({"cells": fixed_list(cells)}).replace_schema_metadata(about), file)
    result = usefulness(trained, file, epochs=2)
    assert set(result["scores"]) == {"trained on generated", "trained on real"} and result["n"] == len(cells)
    assert result["ratio"]["acc@5"] == pytest.approx(1, rel=0.3)
    with pytest.raises(BadInput, match="n=1000 is not within 16"):
        usefulness(trained, file, n=1000)
    model = mobtk.build("autoregressive", tmp_path / "r", data=dataset.path, changes={"traits": []}).model()
    found = _foretell(model, cells[:4])
    assert 0 <= found["acc@1"] <= found["acc@5"] <= 1 and set(found) == {"acc@1", "acc@5", "acc@1, moves", "acc@5, moves"}
