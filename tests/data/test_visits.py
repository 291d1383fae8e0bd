"""Stays, places, trips, home and work: by hand, and against trackintel where its rules are sound."""

import numpy as np
import pandas as pd
import pytest

from mobtk.data.visits import Staying, Visits, find_home_and_work, find_places, find_stays, find_trips, visits
from mobtk.errors import BadInput


def _walk(users=3, n=400, seed=0):
    """People who stay, go, and lose their signal now and then."""
    rng = np.random.default_rng(seed)
    frames = []
    for u in range(users):
        place = np.cumsum(rng.random(n) < 0.08)
        at = rng.normal(0, 0.01, (place.max() + 1, 2))
        seconds = np.cumsum(rng.choice([30, 60, 120, 1500], n, p=[0.4, 0.4, 0.17, 0.03]))
        xy = at[place] + rng.normal(0, 1e-4, (n, 2))
        time = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(seconds, unit="s")
        frames.append(pd.DataFrame({"user": f"u{u}", "time": time, "lat": 52.5 + xy[:, 0], "lon": 13.4 + xy[:, 1]}))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(("metres", "minutes", "gap"), [(100, 5, 15), (50, 2, 15), (300, 10, 60)])
def test_stays_are_those_of_trackintel(metres, minutes, gap):
    geopandas = pytest.importorskip("geopandas")
    trackintel = pytest.importorskip("trackintel")
    points = _walk()
    frame = geopandas.GeoDataFrame(
        {"user_id": points["user"], "tracked_at": points["time"]},
        geometry=geopandas.points_from_xy(points["lon"], points["lat"]),
        crs=4326,
    )
    frame.index.name = "id"
    _, theirs = trackintel.preprocessing.positionfixes.generate_staypoints(
        trackintel.Positionfixes(frame), dist_threshold=metres, time_threshold=minutes, gap_threshold=gap
    )
    theirs = theirs.sort_values(["user_id", "started_at"])
    ours = find_stays(points, Staying(metres=metres, minutes=minutes, gap=gap, cut=False))
    assert len(ours) == len(theirs) > 5
    assert (ours["time"].to_numpy() == theirs["started_at"].to_numpy()).all()
    assert (ours["end"].to_numpy() == theirs["finished_at"].to_numpy()).all()
    np.testing.assert_allclose(ours["lon"], theirs.geometry.x, atol=1e-9)
    np.testing.assert_allclose(ours["lat"], theirs.geometry.y, atol=1e-9)


def test_a_stay_that_a_gap_cuts_off_counts_unless_told():
    minutes = [0, 5, 10, 15, 300, 301]
    points = pd.DataFrame({"user": "a", "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(minutes, unit="min"),
                           "lat": [52.5] * 4 + [53.0] * 2, "lon": 13.4})  # fmt: skip
    stays = find_stays(points)
    assert len(stays) == 1 and stays["end"][0] == pd.Timestamp("2024-01-01 00:15", tz="UTC")
    assert not len(find_stays(points, Staying(cut=False)))


@pytest.mark.parametrize("method", ["distance", "speed", "cluster"])
def test_every_method_finds_two_hours_at_home_and_at_work(method):
    time = pd.date_range("2024-01-01", periods=241, freq="1min")
    lat = np.concatenate([np.full(120, 52.5), [52.55], np.full(120, 52.6)])
    points = pd.DataFrame({"user": "a", "time": time, "lat": lat, "lon": 13.4})
    stays = find_stays(points, Staying(method=method))
    assert stays["lat"].round(3).tolist() == [52.5, 52.6]
    trips = find_trips(find_places(stays), points)
    assert len(trips) == 1 and abs(trips["path_km"][0] - 11.1) < 0.1
    assert (trips["from_place"][0], trips["to_place"][0]) == (0, 1)


def test_a_mean_position_across_the_antimeridian():
    time = pd.date_range("2024-01-01", periods=20, freq="1min")
    points = pd.DataFrame({"user": "a", "time": time, "lat": 0.0, "lon": [179.9999, -179.9999] * 10})
    assert abs(abs(find_stays(points)["lon"][0]) - 180) < 1e-6


def _life(days):
    rows = []
    for day in pd.date_range("2024-01-01", periods=days):  # a Monday
        at_work = day.weekday() < 5
        rows.append((day, day + pd.Timedelta(hours=8), 52.5))
        rows.append((day + pd.Timedelta(hours=9), day + pd.Timedelta(hours=17), 52.6 if at_work else 52.7))
        rows.append((day + pd.Timedelta(hours=18), day + pd.Timedelta(hours=24), 52.5))
    stays = pd.DataFrame(rows, columns=["time", "end", "lat"]).assign(user="a", lon=13.4)
    return find_places(stays.assign(time=stays["time"].dt.tz_localize("UTC"), end=stays["end"].dt.tz_localize("UTC")))


def test_home_and_work_and_how_sure_they_are():
    few, many = find_home_and_work(_life(3)).iloc[0], find_home_and_work(_life(28)).iloc[0]
    for found in (few, many):
        assert round(found["home_lat"], 3) == 52.5 and round(found["work_lat"], 3) == 52.6
    assert many["home_days"] == 28 and many["work_days"] == 20
    assert few["home_confidence"] < 0.6 < 0.9 < many["home_confidence"] < 1
    nobody = find_home_and_work(_life(3).assign(place=-1)).iloc[0]
    assert nobody["home_place"] == -1 and nobody["home_confidence"] == 0


def test_a_folder_of_visits_trains_as_events(tmp_path):
    import mobtk

    _walk(users=4).to_parquet(tmp_path / "p.parquet")
    told = visits(tmp_path / "p.parquet", tmp_path / "v")
    folder = Visits(tmp_path / "v")
    assert told["counts"]["stays"] == len(folder.table("stays")) > 20
    assert set(folder.table("people")["user"]) == {"u0", "u1", "u2", "u3"}
    dataset = mobtk.prepare(tmp_path / "v" / "stays.parquet", tmp_path / "d", step="event", period="4")
    assert dataset.cells.shape[1] == 4
    with pytest.raises(BadInput, match="no user stays within 1 m"):
        visits(tmp_path / "p.parquet", tmp_path / "none", staying=Staying(metres=1, minutes=500))
    assert not (tmp_path / "none").exists()
