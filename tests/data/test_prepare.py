"""From points to a dataset: what is kept, what is lost and told, what is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mobtk
from mobtk.data.cut import fill
from mobtk.data.traits import home_and_work
from mobtk.errors import BadInput


def _points(users=6, days=14, every="30min", seed=0):
    """People at home by night and at work by day, around Berlin, in two whole weeks from a Monday."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=days * 48, freq=every)
    frames = []
    for u in range(users):
        home, work = 52.5 + 0.05 * rng.random(2), 13.3 + 0.05 * rng.random(2)
        at_work = ((times.hour >= 9) & (times.hour < 17)).astype(int)
        frames.append(pd.DataFrame({"user": f"u{u}", "time": times, "lat": home[at_work], "lon": work[at_work]}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def csv(tmp_path):
    file = tmp_path / "points.csv"
    _points().to_csv(file, index=False)
    return file


def test_weeks_of_hours_from_csv(csv, tmp_path):
    dataset = mobtk.prepare(csv, tmp_path / "d", mapper_options={"size": 500})
    assert dataset.cells.shape == (12, 168)
    assert dataset.info.split == {"train": 8, "valid": 2, "test": 2}
    assert str(dataset.starts.min())[:10] == "2024-01-01"
    assert (dataset.column("home") != dataset.column("work")).mean() > 0.5
    again = mobtk.Dataset(tmp_path / "d")
    assert (again.cells == dataset.cells).all()
    assert again.info == dataset.info


@pytest.mark.parametrize("kind", ["parquet", "geoparquet", "csv.gz"])
def test_every_format_gives_the_same(kind, csv, tmp_path):
    points = pd.read_csv(csv)
    file = tmp_path / f"p.{kind}"
    if kind == "parquet":
        points.assign(time=pd.to_datetime(points["time"])).to_parquet(file)
    elif kind == "csv.gz":
        points.to_csv(file, index=False)
    else:
        import geopandas

        frame = geopandas.GeoDataFrame(
            points[["user", "time"]], geometry=geopandas.points_from_xy(points["lon"], points["lat"]), crs=4326
        )
        frame.to_crs(3035).to_parquet(file)
    expected = mobtk.prepare(csv, tmp_path / "a").cells
    assert (mobtk.prepare(file, tmp_path / "b").cells == expected).mean() > 0.999


def test_columns_units_and_scale_are_mapped(tmp_path):
    points = _points()
    odd = pd.DataFrame(
        {
            "uid": points["user"],
            "minute": (points["time"] - pd.Timestamp("2024-01-01")).dt.total_seconds() // 60,
            "y6": (points["lat"] * 1e6).astype(int),
            "x6": (points["lon"] * 1e6).astype(int),
        }
    )
    odd.to_parquet(tmp_path / "odd.parquet")
    points.to_parquet(tmp_path / "plain.parquet")
    a = mobtk.prepare(tmp_path / "plain.parquet", tmp_path / "a")
    b = mobtk.prepare(
        tmp_path / "odd.parquet", tmp_path / "b", user="uid", time="minute", lat="y6", lon="x6",
        time_unit="min", time_origin="2024-01-01", scale=1e-6,
    )  # fmt: skip
    assert (a.cells == b.cells).mean() > 0.99
    assert (a.starts == b.starts).all()


def test_days_begin_at_midnight_where_the_people_are(tmp_path):
    points = _points(days=4)
    points["time"] = points["time"] - pd.Timedelta("8h")  # the same local days, told in UTC
    points.to_parquet(tmp_path / "p.parquet")
    dataset = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", period="day", timezone="Asia/Shanghai")
    assert {str(s)[11:19] for s in dataset.starts} == {"00:00:00"}
    assert len(dataset) == 24


def _one_day(tmp_path, times, **options):
    """The starts of a day of a point an hour of three users, whose times are written as they are."""
    frames = [pd.DataFrame({"user": u, "time": times, "lat": 52.5, "lon": 13.3}) for u in "abc"]
    pd.concat(frames).to_csv(tmp_path / "p.csv", index=False)
    dataset = mobtk.prepare(tmp_path / "p.csv", tmp_path / "d", period="day", **options)
    return {str(s)[:16] for s in dataset.starts}, dataset


def test_times_in_words_are_read_as_told_and_never_guessed(tmp_path):
    hours = pd.date_range("2024-02-12", periods=24, freq="1h")
    written = hours.strftime("%d/%m/%Y %H:%M")
    with pytest.raises(BadInput, match="begins with '12/02/2024 00:00', which is not ISO 8601.*--time-format"):
        _one_day(tmp_path, written)
    starts, _ = _one_day(tmp_path, written, time_format="%d/%m/%Y %H:%M")
    assert starts == {"2024-02-12T00:00"}


def test_an_unreadable_time_has_a_line_of_its_own_in_the_funnel(tmp_path):
    times = [*pd.date_range("2024-02-12", periods=24, freq="1h").astype(str), "soon"]
    _, dataset = _one_day(tmp_path, times)
    assert {loss.step: loss.why[:1] for loss in dataset.info.funnel}["times read"] == "3"


def test_the_offset_of_an_origin_counts(tmp_path):
    starts, _ = _one_day(tmp_path, range(24), time_unit="h", time_origin="2024-02-12 00:00+08:00", timezone="Asia/Shanghai")
    assert starts == {"2024-02-12T00:00"}


def test_moments_of_one_second_and_of_the_repeated_hour_are_no_duplicates(tmp_path):
    times = pd.date_range("2024-10-27", periods=4 * 3600, freq="500ms", tz="UTC")  # the clocks go back at 01:00 UTC
    _, dataset = _one_day(tmp_path, times, timezone="Europe/Berlin", coverage=0.01)
    assert {loss.step: loss.points for loss in dataset.info.funnel}["no row twice"] == 3 * len(times)


@pytest.mark.parametrize("period", ["week", "168"])
def test_a_week_begins_on_a_monday_however_it_is_told(period, csv, tmp_path):
    dataset = mobtk.prepare(csv, tmp_path / "d", period=period)
    assert {pd.Timestamp(s).day_name() for s in dataset.starts} == {"Monday"}
    assert dataset.info.steps_per_day == 24


@pytest.mark.parametrize(
    ("step", "period", "per_day"), [("1h", "30", 30), ("7h", "24", 24), ("2D", "7", 7), ("30min", "96", 48)]
)
def test_steps_have_an_hour_only_where_whole_days_are_cut_evenly(step, period, per_day, csv, tmp_path):
    assert mobtk.prepare(csv, tmp_path / "d", step=step, period=period, coverage=0).info.steps_per_day == per_day


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_text_tables_of_any_separator_keep_the_names_of_users(separator, tmp_path):
    points = _points(users=3)
    points["user"] = points["user"].map({"u0": "01", "u1": "1", "u2": "9007199254740993"})
    points.to_csv(tmp_path / "p.csv", index=False, sep=separator, encoding="utf-8-sig")
    dataset = mobtk.prepare(tmp_path / "p.csv", tmp_path / "d")
    assert set(dataset.users) == {"01", "1", "9007199254740993"}


def test_a_step_keeps_its_most_visited_cell(tmp_path):
    rows = []
    for user in "abc":
        for hour in range(24):
            minutes = [(5, 13.30), (15, 13.40), (25, 13.40)]
            rows += [(user, pd.Timestamp("2024-01-01") + pd.Timedelta(hours=hour, minutes=m), 52.5, x) for m, x in minutes]
    pd.DataFrame(rows, columns=["user", "time", "lat", "lon"]).to_parquet(tmp_path / "p.parquet")
    dataset = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", period="day")
    assert (dataset.cells == dataset.mapper().encode([52.5], [13.4])[0]).all()


def test_the_funnel_tells_every_loss(tmp_path):
    points = _points()
    n = len(points)
    points.loc[3, "lat"] = np.nan
    points.loc[5, "user"] = None
    points = pd.concat(
        [
            points,
            points.iloc[10:20],
            pd.DataFrame({"user": ["far"], "time": [points["time"][0]], "lat": [10.0], "lon": [10.0]}),
        ]
    )
    points.to_parquet(tmp_path / "p.parquet")
    dataset = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", bounds=(52, 13, 53, 14))
    left = {loss.step: loss.points for loss in dataset.info.funnel}
    assert left["read"] == n + 11
    assert left["complete"] == n + 9
    assert left["in bounds"] == n + 8
    assert left["no row twice"] == n - 2
    assert dataset.info.funnel[-1].sequences == len(dataset)
    assert all(loss.why for loss in dataset.info.funnel[1:])


row = st.lists(st.integers(-1, 3), min_size=1, max_size=12)


@given(row, st.sampled_from(["hold", "nearest", "drop"]), st.none() | st.integers(1, 4))
def test_gaps_are_filled_by_their_rule(cells, gaps, max_gap):
    filled = fill(np.array([cells]), gaps, max_gap)[0].tolist()
    known = [i for i, c in enumerate(cells) if c >= 0]
    for i, c in enumerate(cells):
        if c >= 0:
            assert filled[i] == c, "what is known stays"
            continue
        before, after = [k for k in known if k < i], [k for k in known if k > i]
        source = None
        if gaps == "hold":
            source = before[-1] if before else (after[0] if after else None)
        elif gaps == "nearest" and known:
            source = min(known, key=lambda k: (abs(k - i), k > i))
        if source is None or (max_gap is not None and abs(source - i) > max_gap):
            assert filled[i] == -1
        else:
            assert filled[i] == cells[source]


def test_home_and_work_by_hand():
    hour, weekend = np.array([2, 3, 12, 13, 12, 20]), np.array([0, 0, 0, 0, 1, 0], bool)
    home, work = home_and_work(np.array([[1, 1, 2, 2, 3, 3], [5, 6, 4, 3, 9, 9]]), hour, weekend)
    assert home.tolist() == [1, 5], "ties go to the lower cell"
    assert work.tolist() == [2, 3]
    home, work = home_and_work(np.array([[7, 7, 8]]), np.array([20, 21, 12]), np.array([False, False, True]))
    assert (home.tolist(), work.tolist()) == ([7], [8]), "no night: all steps; no weekday: the weekend"


def test_visits_are_cut_without_overlap_and_end_with_the_last(tmp_path):
    rows = [(u, 60 * i, f"p{(i * 7 + len(u)) % 5}") for u in ("a", "bb", "ccc") for i in range(50)]
    pd.DataFrame(rows, columns=["user", "minute", "poi"]).to_parquet(tmp_path / "visits.parquet")
    places = pd.DataFrame({"poi": [f"p{i}" for i in range(5)], "lat": 52.5 + 0.01 * np.arange(5), "lon": 13.3})
    places.to_parquet(tmp_path / "places.parquet")
    dataset = mobtk.prepare(
        tmp_path / "visits.parquet", tmp_path / "d", time="minute", time_unit="min", time_origin="2024-01-01",
        places=tmp_path / "places.parquet", place="poi", mapper="places", step="event", period="8", split="time",
    )  # fmt: skip
    assert dataset.mapper().n_cells == (5,)
    assert dataset.cells.shape == (18, 8)
    mine = dataset.cells[dataset.users == "a"].ravel()
    assert mine.tolist() == [(i * 7 + 1) % 5 for i in range(2, 50)], "the first two do not fill a sequence"
    ends = dataset.starts
    assert ends[dataset.rows("train")].max() <= ends[dataset.rows("test")].max()


BAD = {
    "empty file": (lambda p: b"", {}, "is empty"),
    "header only": (lambda p: b"user,time,lat,lon\n", {}, "has a header but no rows"),
    "no such column": (
        lambda p: p.rename(columns={"lat": "y"}),
        {},
        r"has no column 'lat'.*it has user, time, y, lon.*--lat",
    ),
    "latitude out of range": (lambda p: p.assign(lat=p["lat"] + 100), {}, r"lat 152\.\d+ is outside -90\.\.90"),
    "swapped axes": (
        lambda p: p.rename(columns={"lat": "lon", "lon": "lat"}).assign(lat=100.0),
        {},
        "swap --lat and --lon",
    ),
    "all below coverage": (
        lambda p: p.iloc[:40],
        {"coverage": 0.9},
        r"no week of any user is covered to 90%.*--coverage 0\.1",
    ),
    "one user": (lambda p: p[p["user"] == "u0"], {}, "needs three users and there is 1 left; use --split time"),
    "one point": (lambda p: p.iloc[:1], {}, "no week of any user is covered"),
    "all times missing": (
        lambda p: p.assign(time=None),
        {},
        r"rows lack a user \(0\), a time \(4,032\) or a position \(0\)",
    ),
    "all positions missing": (
        lambda p: p.assign(lat=np.nan),
        {},
        r"lack a user \(0\), a time \(0\) or a position \(4,032\)",
    ),
    "no times": (
        lambda p: p.assign(time="yesterday"),
        {},
        "begins with 'yesterday', which is not ISO 8601.*--time-format",
    ),
    "numbers without a unit": (lambda p: p.assign(time=np.arange(len(p))), {}, "--time-unit"),
    "unknown timezone": (lambda p: p, {"timezone": "Berlin"}, "timezone 'Berlin' is unknown"),
    "unknown mapper": (lambda p: p, {"mapper": "gird"}, "did you mean 'grid'"),
    "unknown option of the mapper": (
        lambda p: p,
        {"mapper_options": {"siez": 1}},
        "has no option 'siez'; it has crs, levels, size",
    ),
    "no duration": (lambda p: p, {"step": "often"}, "step 'often' is no duration"),
    "uneven period": (lambda p: p, {"step": "7h", "period": "day"}, "not a whole number of steps"),
    "unknown gap rule": (lambda p: p, {"gaps": "guess"}, "gap rule 'guess' is not one of hold, nearest, drop"),
    "shares": (lambda p: p, {"shares": (0.5, 0.1, 0.1)}, "sum to 1"),
    "outside": (lambda p: p, {"bounds": (0.0, 0.0, 1.0, 1.0)}, "no point .* is left after the step 'in bounds'"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_sentence_and_nothing_is_written(case, tmp_path):
    make, options, complaint = BAD[case]
    content = make(_points())
    file = tmp_path / "in.csv"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content.to_csv(file, index=False)
    with pytest.raises(mobtk.MobtkError, match=complaint) as error:
        mobtk.prepare(file, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"], "nothing half-written"


def test_a_truncated_parquet_is_one_sentence(tmp_path):
    whole = tmp_path / "whole.parquet"
    _points().to_parquet(whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(BadInput, match=r"cut\.parquet cannot be read"):
        mobtk.prepare(cut, tmp_path / "out")


def test_duplicates_and_gaps_in_time_are_told_and_the_rest_is_used(tmp_path):
    points = pd.concat([_points(), _points().iloc[:100]])
    points.to_csv(tmp_path / "in.csv", index=False)
    dataset = mobtk.prepare(tmp_path / "in.csv", tmp_path / "d")
    assert "100 have the user, time of another row" in [loss.why for loss in dataset.info.funnel]
    assert len(dataset) == 12


def test_an_existing_folder_is_kept_unless_told(csv, tmp_path):
    mobtk.prepare(csv, tmp_path / "d")
    with pytest.raises(BadInput, match="exists already.*--force"):
        mobtk.prepare(csv, tmp_path / "d")
    mobtk.prepare(csv, tmp_path / "d", replace=True)


def test_a_full_disk_is_told_and_leaves_nothing(csv, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(BadInput, match=r"cannot write .*No space left on device; free some space"):
        mobtk.prepare(csv, tmp_path / "d")
    assert [p.name for p in tmp_path.iterdir()] == ["points.csv"]


def test_a_file_in_the_way_of_the_folder_is_told(csv, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot write"):
        mobtk.prepare(csv, tmp_path / "file" / "d")


@pytest.mark.parametrize("name", ["dataset.toml", "mapper.json", "sequences.parquet"])
def test_a_damaged_dataset_is_told(name, csv, tmp_path):
    mobtk.prepare(csv, tmp_path / "d")
    (tmp_path / "d" / name).write_bytes(b"\x00broken")
    with pytest.raises(BadInput, match="is damaged.*prepare it again"):
        mobtk.Dataset(tmp_path / "d")


def test_what_is_no_dataset_is_told(tmp_path):
    with pytest.raises(BadInput, match="is not a dataset.*mobtk data prepare"):
        mobtk.Dataset(tmp_path)


def _grid_of_points(users, days=14, every="30min"):
    time = pd.date_range("2024-01-01", periods=days * 48, freq=every, tz="UTC")
    rows = [pd.DataFrame({"user": u, "time": time, "lat": 40 + 0.01 * i, "lon": 116.0}) for i, u in enumerate(users)]
    return pd.concat(rows, ignore_index=True)


def test_a_piece_that_keeps_no_point_does_no_harm(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    import mobtk.data.sources as sources

    points = _grid_of_points("abcd").sort_values("time")
    pq.write_table(pa.Table.from_pandas(points, preserve_index=False), tmp_path / "p.parquet", row_group_size=500)
    whole = sources.ROWS
    sources.ROWS = 500
    try:
        dataset = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", since="2024-01-08")
    finally:
        sources.ROWS = whole
    assert len(dataset) == 4 and set(dataset.users) == set("abcd")


def test_one_word_among_epoch_numbers_costs_one_point(tmp_path):
    points = _grid_of_points("abcd")
    points["time"] = (points["time"].astype("datetime64[s, UTC]").astype(np.int64)).astype(str)
    points.loc[5, "time"] = "bad"
    points.to_csv(tmp_path / "p.csv", index=False)
    funnel = mobtk.prepare(tmp_path / "p.csv", tmp_path / "d").info.funnel
    assert funnel[0].points - next(loss for loss in funnel if loss.step == "times read").points == 1


def test_files_that_count_in_other_units_are_refused(tmp_path):
    points = _grid_of_points("abcd")
    seconds = points["time"].astype("datetime64[s, UTC]").astype(np.int64)
    points.assign(time=seconds).to_csv(tmp_path / "a.csv", index=False)
    points.assign(time=seconds * 1000).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(BadInput, match="a.csv in s.*b.csv in ms|b.csv in ms.*a.csv in s"):
        mobtk.prepare([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "d")


def test_users_of_several_columns_are_told_apart(tmp_path):
    points = pd.concat([_grid_of_points(["x"]).assign(a=a, b=b) for a, b in (("1-2", "3"), ("1", "2-3"), ("4", "5"))])
    points.to_csv(tmp_path / "p.csv", index=False)
    assert mobtk.prepare(tmp_path / "p.csv", tmp_path / "d", user="a,b").info.funnel[0].users == 3


def test_every_cell_of_the_result_is_visited_by_enough_people(tmp_path):
    points = _grid_of_points("abcdefgh")
    points["lat"] = 40.0
    rare = points["user"].isin(["a", "b"]) & (points["time"].dt.hour == 4)
    points.loc[rare, "lat"] = 40.2
    thin = points["user"].isin(["b"]) & (points.index % 8 > 0)  # b goes for want of coverage, and leaves a alone there
    points[~thin].to_parquet(tmp_path / "p.parquet")
    dataset = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d", min_users=2, step="1h")
    pairs = pd.DataFrame({"u": np.repeat(dataset.users, 168), "c": dataset.cells.ravel()}).drop_duplicates()
    assert pairs.groupby("c").size().min() >= 2
    assert dataset.info.funnel[-1].step == "2 users a cell, again" and "a" not in dataset.users


@pytest.mark.parametrize("zone", ["America/St_Johns", "America/Moncton", "Asia/Gaza", "Australia/Lord_Howe"])
def test_clocks_that_change_within_a_quarter_are_read_right(zone):
    from mobtk.data.moments import local_seconds

    us = pd.date_range("2004-01-01", "2006-12-31", freq="61s").as_unit("us").asi8
    want = pd.DatetimeIndex(us.view("datetime64[us]")).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    assert np.array_equal(local_seconds(us, zone), want.as_unit("us").asi8 // 1_000_000)


def test_a_bad_beginning_does_not_cost_what_follows():
    from mobtk import kernels

    lat = np.array([50.0, 40.0, 40.0001, 40.0002, 45.0, 40.0003])
    time = np.arange(6) * 60_000_000
    assert kernels.too_fast(np.zeros(6, np.int32), time, lat, np.full(6, 116.0), 50.0).tolist() == [1, 0, 0, 0, 1, 0]


def test_a_day_and_an_hour_are_a_time(tmp_path):
    points = _grid_of_points("abcd", every="1h")
    points["date"], points["hour"] = points["time"].dt.strftime("%Y-%m-%d"), points["time"].dt.hour
    points.drop(columns="time").to_csv(tmp_path / "p.csv", index=False)
    from mobtk.data.check import check

    report, _ = check(tmp_path / "p.csv")
    assert report.reading["time"] == "date,hour" and not any("time" in f for f, share in report.faults.items() if share)
    assert mobtk.prepare(tmp_path / "p.csv", tmp_path / "d", time="date,hour").info.funnel[-1].points == len(points)


def test_a_full_disk_keeps_what_was_done(tmp_path):
    from mobtk.data.shards import work_folder
    from mobtk.errors import TryAgain

    for error, stays in ((BadInput("no"), False), (TryAgain("full"), True)):
        with pytest.raises(BadInput), work_folder(tmp_path / "d", {"a": 1}) as folder:
            raise error
        assert folder.exists() == stays
