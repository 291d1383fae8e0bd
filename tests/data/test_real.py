"""Real files go through the preparation by their columns alone; skipped where they are not on the machine."""

import mobtk


def test_days_of_taxis_whose_times_are_seconds(shared_data, tmp_path):
    dataset = mobtk.prepare(
        shared_data / "taxi_samples" / "cabspotting_10cabs.parquet", tmp_path / "cabs", user="cab", time="t", time_unit="s",
        timezone="America/Los_Angeles", period="day", split="time", bounds=(37.55, -122.55, 37.85, -122.2),
    )  # fmt: skip
    assert dataset.cells.shape[1] == 24
    assert len(set(dataset.users)) == 10
    assert {str(start)[11:19] for start in dataset.starts} == {"00:00:00"}


def test_days_of_taxis_in_millionths_of_a_degree(shared_data, tmp_path):
    dataset = mobtk.prepare(
        shared_data / "taxi_samples" / "shenzhen_taxi_transbigdata.parquet", tmp_path / "taxis", user="vehicle", time="t",
        time_unit="s", time_origin="2013-10-22", lat="lat_e6", lon="lon_e6", scale=1e-6, period="day",
        bounds=(22.4, 113.7, 22.9, 114.7),
    )  # fmt: skip
    assert dataset.cells.shape[1] == 24
    assert sum(dataset.info.split.values()) == len(dataset) > 100


def test_check_ins_with_a_table_of_places(shared_data, tmp_path):
    folder = shared_data / "foursquare_nyc"
    dataset = mobtk.prepare(
        folder / "checkins.parquet", tmp_path / "nyc", time="minute", time_unit="min", time_origin="2012-04-03 17:59",
        timezone="America/New_York", places=folder / "pois.parquet", place="poi", mapper="places", step="event",
        period="16", split="time", shares=(0.8, 0.1, 0.1),
    )  # fmt: skip
    assert dataset.cells.shape[1] == 16
    train = dataset.moments()[dataset.rows("train")]
    assert train.max() <= dataset.info.cuts[0], "no training visit is later than the cut"
