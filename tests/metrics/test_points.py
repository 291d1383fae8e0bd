"""Known answers: a walk on a plane of which every error can be told by hand."""

import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobtk.baselines.points import fit_completions
from mobtk.contracts import Hidden
from mobtk.data.trajectories import Trajectory
from mobtk.geo import from_local, to_local
from mobtk.masks import Block, KeepEvery, Last, OriginDestination, TravelTime
from mobtk.metrics.cards import CARDS
from mobtk.metrics.points import PLACE_METRICS, TIME_METRICS, PointErrors, skill

RNG = np.random.default_rng(0)


def _walk(east, north, seconds, origin=(52.0, 13.0)):
    lat, lon = from_local(np.column_stack([east, north]).astype(float), origin)
    return Trajectory("a", (np.asarray(seconds, float) * 1e6).astype(np.int64), lat, lon)


def _scores(way, trajectory, mask, train=()):
    hidden = mask(*_time_place(trajectory), RNG)
    errors = PointErrors()
    errors.add(trajectory, hidden, fit_completions(train, mask)[way](trajectory, hidden))
    return errors.scores()


def _time_place(t):
    return (t.time - t.time[0]) / 1e6, to_local(t.lat, t.lon, (t.lat[0], t.lon[0]))


LINE = _walk(np.arange(20) * 10, np.zeros(20), np.arange(20))
CORNER = _walk(np.minimum(np.arange(20), 9) * 10, np.maximum(np.arange(20) - 9, 0) * 10, np.arange(20))


def test_errors_by_hand():
    truth = _walk([0, 0, 0, 0], [0, 100, 200, 300], [0, 10, 20, 30])
    told = _walk([0, 3, 0, 0], [0, 104, 200, 312], [0, 10, 25, 24])
    hidden = Hidden(np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1], bool), np.zeros(4, bool))
    errors = PointErrors()
    errors.add(truth, hidden, told)
    expected = {"ade": 8.5, "fde": 12, "place_rmse": np.sqrt((25 + 144) / 2),
                "time_mae": 5.5, "time_rmse": np.sqrt((25 + 36) / 2), "time_mape": (5 / 20 + 6 / 30) / 2}  # fmt: skip
    assert errors.scores() == pytest.approx(expected, rel=5e-3)  # the metric is of the sphere, the plane of the ellipsoid
    assert errors.by_step() == pytest.approx([5, 12], rel=5e-3)
    assert set(expected) == {*PLACE_METRICS, *TIME_METRICS} <= set(CARDS)


def test_each_trajectory_weighs_the_same_in_ade_and_each_place_in_rmse():
    errors = PointErrors(metres=[np.full(9, 1.0), np.full(1, 3.0)])
    assert errors.scores()["ade"] == 2
    assert errors.scores()["place_rmse"] == pytest.approx(np.sqrt(1.8))


def test_who_goes_on_straight_is_foretold_and_who_stays_is_not():
    assert _scores("constant velocity", LINE, Last(points=5))["ade"] < 1e-6
    assert _scores("stay put", LINE, Last(points=5))["ade"] == pytest.approx(30, rel=5e-3)
    assert _scores("interpolation", LINE, Last(points=5))["fde"] == pytest.approx(50, rel=5e-3)


def test_interpolation_knows_when():
    uneven = _walk([0, 10, 90, 100], [0, 0, 0, 0], [0, 1, 9, 10])
    assert Block(share=0.7)(*_time_place(uneven), RNG).place.tolist() == [False, True, True, False]
    assert _scores("interpolation", uneven, Block(share=0.7))["ade"] < 1e-6


def test_round_a_corner_the_straight_line_misses():
    mask = KeepEvery(points=18)
    assert _scores("interpolation", CORNER, mask)["ade"] > 20
    assert _scores("constant velocity", CORNER, mask)["ade"] == _scores("stay put", CORNER, mask)["ade"]


@pytest.mark.parametrize("mask", [TravelTime(), OriginDestination()])
def test_a_constant_pace_is_that_of_the_training_split(mask):
    slow = _walk(np.arange(20) * 5, np.zeros(20), np.arange(20))
    for own in (LINE, CORNER):  # along what is shown: of a corner that may be the way across
        assert _scores("constant pace", own, mask, [own])["time_mae"] < 1e-3
    assert _scores("constant pace", LINE, mask, [slow])["time_mape"] == pytest.approx(1, rel=1e-3)


def test_a_usual_pause_is_that_of_the_training_split():
    walk = _walk([0, 5, 50, 60], np.zeros(4), [0, 10, 20, 30])
    assert _scores("usual pause", walk, TravelTime(), [walk])["time_mae"] < 1e-3
    assert _scores("usual pause", walk, OriginDestination(), [walk])["time_mae"] < 1e-3  # thirty seconds are what it takes
    assert set(fit_completions([walk], TravelTime())) == {"constant pace", "usual pause"}


def test_a_chain_of_speeds_goes_on_as_it_usually_does():
    """At one speed it goes on straight; where everybody who walks at 3 m/s stops next, it stops, too."""
    assert _scores("markov", LINE, Last(points=5), [LINE])["ade"] < 1e-6
    stops = _walk([0, 30, 30, 30, 30, 30], np.zeros(6), np.arange(6) * 10)
    going = _walk(np.arange(6) * 30, np.zeros(6), np.arange(6) * 10)
    told = fit_completions([stops], Last(points=1))["markov"](going, Last(points=1)(*_time_place(going), RNG))
    assert told.lon[-1] == pytest.approx(going.lon[-2], abs=1e-9)


def test_moments_between_known_ones_are_shared_out_by_the_way():
    walk = _walk([0, 10, 20, 50, 60], np.zeros(5), [0, 10, 20, 50, 60])
    hidden = Hidden(np.zeros(5, bool), np.array([0, 0, 1, 1, 0], bool), np.zeros(5, bool))
    slow = _walk([0, 1, 2], np.zeros(3), [0, 10, 20])
    told = fit_completions([slow], TravelTime())["constant pace"](walk, hidden)
    np.testing.assert_allclose((told.time - walk.time) / 1e6, 0, atol=1e-3)


def test_what_is_hidden_is_not_looked_at():
    for mask in (Block(), Last(times=True), TravelTime(), OriginDestination()):
        hidden = mask(*_time_place(CORNER), np.random.default_rng(1))
        other = Trajectory("a", np.where(hidden.time | hidden.absent, 7, CORNER.time),
                           *(np.where(hidden.place | hidden.absent, 0.0, x) for x in (CORNER.lat, CORNER.lon)))  # fmt: skip
        for way in fit_completions([LINE], mask).values():
            a, b = way(CORNER, hidden), way(other, hidden)
            for x, y in ((a.time, b.time), (a.lat, b.lat), (a.lon, b.lon)):
                assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def test_skill_is_against_the_baseline():
    assert (skill(50, 100), skill(100, 100), skill(0, 100)) == (0.5, 0, 1)
    assert np.isnan(skill(1, 0))


@given(st.floats(-85, 85), st.floats(-180, 180), st.lists(st.tuples(st.floats(-3e4, 3e4), st.floats(-3e4, 3e4)), min_size=1))
def test_the_plane_is_undone_exactly(lat, lon, places):
    places = np.array(places)
    again = to_local(*from_local(places, (lat, lon)), (lat, lon))
    assert np.abs(again - places).max() < 1e-6


def test_the_plane_is_that_of_the_ellipsoid():
    geod = pyproj.Geod(ellps="WGS84")
    for lat, lon in ((52.0, 13.0), (-33.9, 151.2), (64.1, -21.9), (1.3, 179.99)):
        for azimuth in (0, 37, 90, 200):
            to_lon, to_lat, _ = geod.fwd(lon, lat, azimuth, 1000.0)
            x, y = to_local(to_lat, to_lon, (lat, lon))
            assert np.hypot(x, y) == pytest.approx(1000, rel=5e-4)
            assert np.degrees(np.arctan2(x, y)) % 360 == pytest.approx(azimuth, abs=0.03)
