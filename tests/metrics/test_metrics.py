"""Known answers for every metric, worked out by hand or by brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobtk.errors import BadInput
from mobtk.metrics import individual, population
from mobtk.metrics.cards import CARDS
from mobtk.metrics.divergence import jensen_shannon, linear_histogram
from mobtk.metrics.next_place import accuracy_at, mean_reciprocal_rank, rank_bounds
from mobtk.metrics.published import published_scores

LAT = np.array([0.0, 0.0, 0.0, 1.0])
LON = np.array([0.0, 1.0, 3.0, 0.0])
DEGREE = math.pi * 6371.0 / 180  # km along a great circle
sequences = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.integers(0, 3))


def _profile(rows, per_day=4):
    return individual.profile(np.array(rows), LAT, LON, per_day)


def test_jensen_shannon_known_answers():
    assert jensen_shannon([1, 2, 3], [10, 20, 30]) == 0
    assert jensen_shannon([1, 0], [0, 5]) == pytest.approx(math.log(2))
    # p = (1/2, 1/2), q = (1, 0): 1/2 [1/2 ln(2/3) + 1/2 ln 2] + 1/2 ln(4/3)
    expected = 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2)) + 0.5 * math.log(4 / 3)
    assert jensen_shannon([3, 3], [7, 0]) == pytest.approx(expected)
    assert math.isnan(jensen_shannon([0, 0], [1, 0]))


@given(arrays(np.int64, 5, elements=st.integers(0, 50)), arrays(np.int64, 5, elements=st.integers(0, 50)))
def test_jensen_shannon_is_symmetric_and_bounded(a, b):
    a, b = a + (a.sum() == 0), b + (b.sum() == 0)
    value = jensen_shannon(a, b)
    assert 0 <= value <= math.log(2) + 1e-12
    assert value == pytest.approx(jensen_shannon(b, a))


def test_histogram_drops_nothing():
    counts = linear_histogram([0.0, 0.49, 0.5, 1.0, 1.01, 99.0], 1.0, 2)
    assert counts.tolist() == [2, 2, 2], "the last bin is closed and what lies above has its own"
    assert linear_histogram([0.0, 0.0], 0.0, 3).tolist() == [2, 0, 0, 0]


def test_profile_of_a_day_by_hand():
    p = _profile([[0, 0, 1, 0]])
    assert p.moves == pytest.approx([DEGREE, DEGREE])
    assert p.still == 1
    assert p.durations.tolist() == [0, 2, 1, 0, 0]
    assert p.daily.tolist() == [0, 0, 1], "two different cells on one day"
    assert p.visits.tolist() == [2, 1, 0, 0]
    # steps at 0, 0, 1, 0 degrees: mean 1/4, mean square distance (3/16)
    assert p.radius == pytest.approx([DEGREE * math.sqrt(3) / 4], rel=1e-3)


def test_days_are_cut_at_midnight_and_stays_are_not():
    p = _profile([[0, 0, 0, 1, 1, 1, 0, 0]])
    assert p.durations.tolist() == [0, 0, 1, 2, 0, 0, 0, 0, 0]
    assert p.daily.tolist() == [0, 0, 2]
    assert _profile([[0, 1, 2, 3, 0, 0, 0, 0]]).daily.tolist() == [0, 1, 0, 0, 1]


def test_nothing_passes_from_one_person_to_the_next():
    p = _profile([[0, 0, 0, 0], [1, 1, 1, 1]])
    assert len(p.moves) == 0
    assert p.still == 6
    assert p.durations.tolist() == [0, 0, 0, 0, 2]
    assert p.radius.tolist() == [0, 0]


@given(sequences, st.integers(1, 5))
def test_profile_equals_counting_one_by_one(rows, per_day):
    p = individual.profile(rows, LAT, LON, per_day)
    durations, daily, moves, visits = [], [], [], []
    for row in rows.tolist():
        start = 0
        for i in range(1, len(row) + 1):
            if i == len(row) or row[i] != row[i - 1]:
                durations.append(i - start)
                visits.append(row[start])
                start = i
        daily += [len(set(row[i : i + per_day])) for i in range(0, len(row), per_day)]
        moves += [(a, b) for a, b in itertools.pairwise(row) if a != b]
    assert p.durations.tolist() == np.bincount(durations, minlength=rows.shape[1] + 1).tolist()
    assert p.daily.tolist() == np.bincount(daily).tolist()
    assert p.visits.tolist() == np.bincount(visits, minlength=4).tolist()
    assert len(p.moves) == len(moves)
    assert p.still == rows.shape[0] * (rows.shape[1] - 1) - len(moves)


def test_scores_of_a_set_with_itself_are_zero_and_its_cpc_is_one():
    rng = np.random.default_rng(0)
    rows = rng.integers(4, size=(50, 24))
    p = _profile(rows, 24)
    for score in (individual.distance_jsd, individual.radius_jsd, individual.duration_jsd, individual.dailyloc_jsd):
        assert score(p, p) == 0
    assert individual.rank_jsd(p, p) == 0
    assert population.density_mape(rows, rows, 4) == 0
    assert population.flow_mape(rows, rows, 4) == 0
    assert population.common_part_of_commuters(rows, rows, 4) == 1


def test_scores_by_hand():
    a, b = _profile([[0, 0, 1, 1]]), _profile([[0, 0, 0, 0]])
    half = jensen_shannon([1, 0], [0, 1])
    assert individual.dailyloc_jsd(a, b) == pytest.approx(half)
    assert individual.duration_jsd(a, b) == pytest.approx(half)
    assert individual.distance_jsd(a, b) == pytest.approx(jensen_shannon([2, 1], [3, 0]))
    assert individual.radius_jsd(a, b) == pytest.approx(half)
    assert individual.rank_jsd(_profile([[0, 1, 0, 1]]), _profile([[2, 3, 2, 2]])) == pytest.approx(
        jensen_shannon([2, 2], [2, 1])
    ), "ranks are compared, not cells"


def test_a_longer_generated_move_than_any_real_one_still_counts():
    real, far = _profile([[0, 1, 0, 1]]), _profile([[0, 2, 0, 2]])
    assert individual.distance_jsd(real, far) == pytest.approx(math.log(2))


def test_population_metrics_by_hand():
    real, generated = [[0, 1], [0, 1], [1, 1]], [[0, 1], [1, 1], [2, 0]]
    # step 0: cell 0 has 2 and 1 (error 1/2), cell 1 has 1 and 1 (0) -> 1/4; step 1: cell 1 has 3 and 2 -> 1/3
    assert population.density_mape(real, generated, 3) == pytest.approx((1 / 4 + 1 / 3) / 2)
    # moves: real 0->1 twice; generated 0->1 once, 2->0 once
    assert population.flow_mape(real, generated, 3) == pytest.approx(1 / 2)
    # with stays: 0->1 2 and 1 (1/2), 1->1 1 and 1 (0)
    assert population.flow_mape(real, generated, 3, stays=True) == pytest.approx(1 / 4)
    assert population.common_part_of_commuters(real, generated, 3) == pytest.approx(2 * 1 / (2 + 2))


def test_populations_of_different_size_are_refused():
    with pytest.raises(BadInput, match=r"equally many sequences.*\(2, 3\).*\(4, 3\)"):
        population.density_mape(np.zeros((2, 3), int), np.zeros((4, 3), int), 1)


def test_next_place_by_hand():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.2]])
    higher, tied = rank_bounds(scores, [0, 2, 1])
    assert higher.tolist() == [0, 1, 0]
    assert tied.tolist() == [1, 1, 3]
    assert accuracy_at(1, higher, tied) == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert accuracy_at(2, higher, tied) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert accuracy_at(3, higher, tied) == 1
    assert mean_reciprocal_rank(higher, tied) == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_published_duration_never_counts_the_last_stay():
    real, generated = np.array([[0, 0, 1, 1, 1, 1]]), np.array([[0, 0, 2, 2, 3, 3]])
    # counted: real 2/6; generated 2/6, 2/6. The largest real one lies on the last edge: both histograms lose it
    assert math.isnan(published_scores(real, generated, LAT, LON)["duration"])


def test_published_bins_are_one_fewer_than_said_and_radius_runs_to_the_square():
    from mobtk.metrics.published import _jsd

    values = np.array([0.1, 0.5, 0.9])
    assert _jsd(values, values, 1.0, 4) == 0
    # edges 0, .25, .5, .75: 0.9 is dropped on both sides, so these differ in what is left only
    assert _jsd(np.array([0.1, 0.9]), np.array([0.1, 0.8, 0.99]), 1.0, 4) == 0


def test_published_dailyloc_is_of_the_whole_sequence():
    real = np.array([[0, 1, 0, 1], [0, 1, 2, 3]])
    other = np.array([[0, 0, 1, 1], [0, 1, 2, 3]])
    assert published_scores(real, other, LAT, LON)["dailyloc"] == 0


@pytest.mark.parametrize("key", list(CARDS))
def test_every_card_says_what_it_must(key):
    card = CARDS[key]
    assert card.formula
    assert card.unit
    assert card.range
    assert card.source
    assert card.aggregation
    assert card.better in ("lower", "higher")
