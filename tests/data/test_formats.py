"""Published formats and odd tables: found out by themselves, and read to the point."""

import json

import numpy as np
import pandas as pd
import pytest

import mobtk
from mobtk.data.clean import Rules
from mobtk.data.formats import Reading, find_format
from mobtk.data.sources import pieces, read_piece, settle
from mobtk.errors import BadInput

PLT = "Geolife trajectory\nWGS 84\nAltitude is in Feet\nReserved 3\n0,2,255,My Track,0,0,2,8421376\n0\n"


def _read(source, **wish):
    files, reading = settle(source, Reading(**{"format": "auto", **wish}))
    points = [read_piece(p, reading)[0] for p in pieces(files, reading)]
    assert len(points) == 1
    return points[0], reading


def _first(points):
    return (points.names[points.user[0]], str(np.datetime64(int(points.time[0]), "us"))[:19], points.lat[0], points.lon[0])


def test_geolife(tmp_path):
    folder = tmp_path / "Data" / "007" / "Trajectory"
    folder.mkdir(parents=True)
    (folder / "1.plt").write_text(PLT + "39.984702,116.318417,0,492,39744.1201851852,2008-10-23,02:53:04\n")
    (folder.parent / "labels.txt").write_text("Start Time\tEnd Time\tTransportation Mode\n")
    points, reading = _read(tmp_path / "Data")
    assert reading.format == "geolife"
    assert _first(points) == ("007", "2008-10-23T02:53:04", 39.984702, 116.318417)


def test_foursquare_tsmc2014(tmp_path):
    row = "470\t49bbd6c0f964a520f4531fe3\t4bf5\tCaf\xe9\t40.719810\t-74.002581\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
    (tmp_path / "dataset_TSMC2014_NYC.txt").write_bytes(row.encode("latin-1"))
    points, reading = _read(tmp_path / "dataset_TSMC2014_NYC.txt")
    assert reading.format == "tsmc2014"
    assert _first(points) == ("470", "2012-04-03T18:00:09", 40.719810, -74.002581)


def test_gowalla(tmp_path):
    (tmp_path / "g.txt").write_text("0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n")
    points, reading = _read(tmp_path / "g.txt")
    assert reading.format == "snap"
    assert _first(points) == ("0", "2010-10-19T23:55:27", 30.2359091167, -97.7951395833)


def test_t_drive_times_are_of_beijing(tmp_path):
    (tmp_path / "1.txt").write_text("1,2008-02-02 15:36:08,116.51172,39.92123\n")
    points, reading = _read(tmp_path)
    assert reading.format == "t-drive"
    assert _first(points) == ("1", "2008-02-02T07:36:08", 39.92123, 116.51172)


def test_porto_has_a_position_every_fifteen_seconds(tmp_path):
    line = json.dumps([[-8.618643, 41.141412], [-8.618499, 41.141376]])
    (tmp_path / "train.csv").write_text(
        '"TRIP_ID","CALL_TYPE","TAXI_ID","TIMESTAMP","MISSING_DATA","POLYLINE"\n'
        f'"1372636858620000589","C","20000589","1372636858","False","{line}"\n"2","C","7","1372636858","False","[]"\n'
    )
    points, reading = _read(tmp_path / "train.csv")
    assert reading.format == "porto"
    assert _first(points) == ("20000589", "2013-07-01T00:00:58", 41.141412, -8.618643)
    assert np.diff(points.time).tolist() == [15_000_000]


def test_yjmob_cells_are_cells_of_the_grid(tmp_path):
    rows = [(u, d, t, 10 + (t // 24) * (u + 1), 20 + u) for u in range(4) for d in range(7) for t in range(48)]
    pd.DataFrame(rows, columns=["uid", "d", "t", "x", "y"]).to_csv(tmp_path / "yj.csv.gz", index=False)
    dataset = mobtk.prepare(tmp_path / "yj.csv.gz", tmp_path / "d", step="30min", mapper_options={"size": 500})
    assert find_format(tmp_path / "yj.csv.gz") == "yjmob"
    assert dataset.mapper().n_cells[0] == 5 * 4, "columns 10 to 14, rows 20 to 23"
    assert set(dataset.starts.astype(str)) == {"2000-01-03T00:00:00.000"} or str(dataset.starts[0]).startswith("2000-01-03")


def test_gpx(tmp_path):
    (tmp_path / "ann.gpx").write_text(
        '<?xml version="1.0"?><gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
        '<trkpt lat="52.5" lon="13.4"><time>2024-01-01T00:00:00Z</time></trkpt>'
        '<trkpt lat="52.6" lon="13.5"><time>2024-01-01T00:01:00Z</time></trkpt></trkseg></trk></gpx>'
    )
    points, _ = _read(tmp_path / "ann.gpx")
    assert _first(points) == ("ann", "2024-01-01T00:00:00", 52.5, 13.4)


@pytest.mark.parametrize("ending", ["gpkg", "geojson"])
def test_points_in_any_crs_from_geo_files(ending, tmp_path):
    import geopandas

    frame = geopandas.GeoDataFrame(
        {"user": ["a", "b"], "time": pd.to_datetime(["2024-01-01T00:00", "2024-01-01T01:00"])},
        geometry=geopandas.points_from_xy([13.4, 13.5], [52.5, 52.6]),
        crs=4326,
    )
    (frame if ending == "geojson" else frame.to_crs(25833)).to_file(tmp_path / f"p.{ending}")
    points, _ = _read(tmp_path / f"p.{ending}")
    np.testing.assert_allclose(points.lat, [52.5, 52.6], atol=1e-7)


def test_columns_in_another_crs(tmp_path):
    (tmp_path / "p.csv").write_text("user,time,x,y\na,2024-01-01T00:00:00Z,391779.5,5820087.5\n")
    points, _ = _read(tmp_path / "p.csv", lat="y", lon="x", crs="EPSG:25833")
    assert abs(points.lat[0] - 52.52) < 0.01 and abs(points.lon[0] - 13.405) < 0.01


def test_composite_users_and_times_of_parts(tmp_path):
    (tmp_path / "s.csv").write_text("name,year,month,day,hour,lat,long\nAmy,1975,6,27,6,27.5,-79.0\n")
    points, _ = _read(tmp_path / "s.csv", user="name,year")
    assert _first(points) == ("Amy-1975", "1975-06-27T06:00:00", 27.5, -79.0)


def test_decimal_commas_no_header_and_local_times(tmp_path):
    (tmp_path / "p.csv").write_text("a;2024-07-01 12:00:00;52,5;13,4\n")
    points, _ = _read(
        tmp_path / "p.csv", decimal=",", columns=("user", "time", "lat", "lon"), naive="Europe/Berlin", format="table"
    )
    assert _first(points) == ("a", "2024-07-01T10:00:00", 52.5, 13.4)


def test_a_text_is_read_alike_in_one_piece_and_in_many(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    lines = "".join(f"u{i % 7},{1_700_000_000 + i},{52 + rng.random():.6f},{13 + rng.random():.6f}\n" for i in range(500))
    (tmp_path / "p.csv").write_text("user,time,lat,lon\n" + lines)
    whole, _ = _read(tmp_path / "p.csv")
    monkeypatch.setattr("mobtk.data.sources.BLOCK", 997)
    files, reading = settle(tmp_path / "p.csv", Reading(format="auto"))
    parts = [read_piece(p, reading)[0] for p in pieces(files, reading)]
    assert len(parts) > 10
    assert np.concatenate([p.lat for p in parts]).tolist() == whole.lat.tolist()


def test_rules_for_rows_and_tracks():
    from mobtk.data.points import Points

    time = np.array([0, 60, 120, 180, 7200, 7260]) * 1_000_000
    lat = np.array([0.0, 0.0, 5.0, 0.0, 0.0, 0.0])
    points = Points(np.array(["a"], object), np.zeros(6, np.int32), time, lat, np.zeros(6))
    kept, counts = Rules(max_speed=100).clean(points)
    assert kept.lat.max() == 0 and counts[-1]["lost"] == 1, "the jump goes, what follows stays"
    kept, _ = Rules(trim=61).clean(points)
    assert kept.time.tolist() == [], "a track of three minutes has no middle"
    with pytest.raises(BadInput, match="--bounds are south,west,north,east"):
        Rules(bounds=(1.0, 0.0, 0.0, 1.0)).check()


def test_a_category_without_rows_is_no_user(tmp_path):
    time = pd.date_range("2024-01-01", periods=7 * 24 * 2, freq="30min", tz="UTC")
    table = pd.concat(pd.DataFrame({"user": u, "time": time, "lat": 40.0, "lon": 116.0}) for u in "abcdefghijkl")
    table["user"] = pd.Categorical(table["user"], categories=list("zyxabcdefghijklm"))
    table.to_parquet(tmp_path / "p.parquet")
    funnel = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "d").info.funnel
    assert {loss.users for loss in funnel} == {12}


def test_a_table_without_a_header_is_no_taxi_of_beijing(tmp_path):
    (tmp_path / "p.csv").write_text("1,2024-03-04 00:00:00,52.5,13.4\n1,2024-03-04 00:10:00,52.5,13.4\n")
    assert find_format(tmp_path / "p.csv") == "table"
    (tmp_path / "t.txt").write_text("1,2008-02-02 15:36:08,116.51172,39.92123\n")
    assert find_format(tmp_path / "t.txt") == "t-drive"
    _, reading = settle(tmp_path / "t.txt", Reading(format="auto", columns=("user", "time", "lon", "lat")))
    assert reading.format == "table" and reading.naive == "UTC"


def test_files_of_one_name_are_several_users(tmp_path):
    for who in ("alice", "bob"):
        (tmp_path / who).mkdir()
        (tmp_path / who / "track.csv").write_text("time,lat,lon\n2024-03-04 00:00:00,52.5,13.4\n")
    files, reading = settle(tmp_path, Reading(format="auto", user="@file"))
    points = [read_piece(piece, reading)[0] for piece in pieces(files, reading)]
    assert {name for p in points for name in p.names} == {"alice/track", "bob/track"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"user,time,lat,lon\n" + b"1" * (30 << 20), "line longer than 16 MB"),
        (b"a" * 5_000 + b",2024-01-01,2,3\n", "characters; is it"),
    ],
)
def test_endless_lines_and_names_are_refused(content, message, tmp_path):
    import gzip

    body = content if b"lat" in content else b"user,time,lat,lon\n" + content
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(body))
    with pytest.raises(BadInput, match=message):
        mobtk.prepare(tmp_path / "p.csv.gz", tmp_path / "d")


def test_a_mistake_found_by_a_worker_comes_back_whole():
    import pickle

    from mobtk.data.text import NoHeader

    back = pickle.loads(pickle.dumps(NoHeader("p.csv has no header", 4)))
    assert (str(back), back.columns) == ("p.csv has no header", 4)
