"""The built-in city against the facts it is calibrated on, and against its own planted truth."""

import numpy as np
import pytest

from mobtk import make_city
from mobtk.data.city import REGIMES
from mobtk.data.dataset import Dataset
from mobtk.errors import BadInput


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Dataset:
    from mobtk import prepare_city

    return prepare_city(tmp_path_factory.mktemp("town") / "town", weeks=2400)


def test_the_same_seed_is_the_same_city():
    a, b, c = make_city(40, seed=3), make_city(40, seed=3), make_city(40, seed=4)
    assert (a.visits == b.visits).all()
    assert (a.lat == b.lat).all()
    assert (a.visits != c.visits).any()


def test_it_covers_the_square_of_900_cells(town):
    assert town.mapper().n_cells == (900, 225, 64, 16)
    assert town.cells.shape == (2400, 168)
    assert town.cells.min() >= 0


def test_shares_of_regimes_are_those_measured(town):
    shares = np.bincount(town.column("regime"), minlength=8) / len(town)
    assert shares == pytest.approx([r.share for r in REGIMES], abs=0.05)


def test_two_thirds_work_in_their_home_cell(town):
    same = (town.column("home") == town.column("work")).mean()
    assert 0.60 < same < 0.76, "69 % of the real weeks"


def test_commuters_travel_as_far_as_measured(town):
    home, work = town.column("home"), town.column("work")
    apart = home != work
    km = np.hypot(home // 30 - work // 30, home % 30 - work % 30)[apart]
    assert np.quantile(km, [0.25, 0.5, 0.75, 0.95]) == pytest.approx([1.4, 4.1, 9.0, 17.0], rel=0.25, abs=0.7)


def test_a_day_has_as_many_places_and_moves_as_measured(town):
    days = town.cells.reshape(-1, 24)
    distinct = (np.diff(np.sort(days, axis=1), axis=1) != 0).sum(1) + 1
    share = np.bincount(distinct, minlength=5)[1:4] / len(days)
    assert share == pytest.approx([0.07, 0.55, 0.28], abs=0.08)
    assert distinct.mean() == pytest.approx(2.44, abs=0.25)
    assert (np.diff(town.cells, axis=1) != 0).sum() / len(days) == pytest.approx(2.44, abs=0.35)


def test_inferred_homes_and_works_are_the_planted_ones(town):
    assert (town.column("home") == town.column("true_home")).mean() > 0.98
    commutes = town.column("true_home") != town.column("true_work")
    assert (town.column("work") == town.column("true_work"))[commutes].mean() > 0.85


def test_movement_clusters_know_more_of_the_regimes_than_chance(town):
    from sklearn.metrics import adjusted_rand_score

    score = adjusted_rand_score(town.column("regime"), town.column("cluster"))
    shuffled = adjusted_rand_score(town.column("regime"), np.random.default_rng(0).permutation(town.column("cluster")))
    assert score > 0.1
    assert abs(shuffled) < 0.02


def test_people_are_on_one_side_of_the_split(town):
    sides = {}
    for split in ("train", "valid", "test"):
        for user in set(town.users[town.rows(split)]):
            assert sides.setdefault(user, split) == split
    assert {s: list(sides.values()).count(s) for s in ("train", "valid", "test")} == {
        "train": 300,
        "valid": 60,
        "test": 240,
    }


@pytest.mark.parametrize("mapper", ["h3", "places"])
def test_any_mapper_will_do(mapper, tmp_path):
    from mobtk import prepare_city

    dataset = prepare_city(tmp_path / "c", weeks=12, mapper=mapper)
    assert dataset.cells.min() >= 0
    assert dataset.mapper_spec["name"] == f"mobtk.{mapper}"


def test_no_week_is_refused():
    with pytest.raises(BadInput, match="a week at least"):
        make_city(0)
