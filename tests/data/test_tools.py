"""Datasets out of datasets, exports, checks of what came, and the report on a file."""

import hashlib
import http.server
import threading
import zipfile

import numpy as np
import pandas as pd
import pytest

import mobtk
from mobtk.data.check import check
from mobtk.data.export import LAYERS, export, layer
from mobtk.data.fetch import PUBLIC, Public, fetch
from mobtk.data.formats import Reading
from mobtk.data.tools import merge, resplit, sample, validate
from mobtk.errors import BadInput


def test_a_sample_keeps_users_whole(city, tmp_path):
    part = sample(city, tmp_path / "s", users=10, seed=1)
    assert len(set(part.users)) == 10 and part.info.trait_sizes["person"] == 10
    for split in ("train", "valid", "test"):
        assert set(part.users[part.rows(split)]) <= set(city.users[city.rows(split)])
    with pytest.raises(BadInput, match="1 to 40 users here, not 41"):
        sample(city, tmp_path / "t", users=41)


def test_a_new_split_and_a_merge(city, tmp_path):
    again = resplit(city, tmp_path / "r", shares=(0.25, 0.25, 0.5))
    assert again.info.split == {"train": 40, "valid": 40, "test": 80}
    with pytest.raises(BadInput, match="have the user and start of another.*--prefix"):
        merge([city, again], tmp_path / "m")
    both = merge([city, again], tmp_path / "m2", prefix=True) if city.info.name != again.info.name else None
    assert both is None, "datasets of one name cannot be told apart by it"


def test_parts_merged_are_the_whole(city, tmp_path):
    import shutil

    parts = []
    for i, name in enumerate(("north", "south")):
        shutil.copytree(city.path, tmp_path / name)
        file = tmp_path / name / "dataset.toml"
        file.write_text(file.read_text().replace(f'name = "{city.info.name}"', f'name = "{name}"', 1))
        parts.append(sample(mobtk.Dataset(tmp_path / name), tmp_path / f"part{i}", users=20, seed=i))
    both = merge(parts, tmp_path / "m", prefix=True)
    assert len(both) == len(parts[0]) + len(parts[1]) and both.info.trait_sizes["person"] == 40
    for part, name in zip(parts, ("north", "south"), strict=True):
        mine = np.char.startswith(both.users.astype(str), name)
        theirs = dict(zip(zip(part.users, part.to_pandas()["start"], strict=True), part.cells.tolist(), strict=True))
        starts = both.to_pandas()["start"][mine]
        found = zip((u.split("/", 1)[-1] for u in both.users[mine]), starts, strict=True)
        assert [theirs[key] for key in found] == both.cells[mine].tolist()
    assert all(f.sound for f in validate(tmp_path / "m"))


@pytest.mark.parametrize("what", list(LAYERS))
def test_layers(what, city):
    frame = layer(city, what, level=1)
    assert frame.crs.to_epsg() == 4326 and len(frame) > 0 and frame.geometry.is_valid.any()
    if what == "od":
        cells = city.mapper().coarsen(city.cells, 1)
        assert frame["moves"].sum() == (cells[:, 1:] != cells[:, :-1]).sum()
    if what == "points":
        assert len(frame) == city.cells.size


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "geojson", "csv"])
def test_exports_are_read_by_others(ending, city, tmp_path):
    import geopandas

    assert export(city, tmp_path / f"x.{ending}", what="lines") == len(city)
    read = {"parquet": geopandas.read_parquet, "csv": pd.read_csv}.get(ending, geopandas.read_file)
    assert len(read(tmp_path / f"x.{ending}")) == len(city)
    with pytest.raises(BadInput, match="exists already"):
        export(city, tmp_path / f"x.{ending}")


def test_views_copy_nothing(city):
    assert city.tensor().data_ptr() == city.cells.ctypes.data
    assert list(city.to_pandas()["user"]) == list(city.users)
    assert city.to_arrow().num_rows == len(city)
    pytest.importorskip("movingpandas")
    assert len(city.to_movingpandas()) == len(city)


def test_what_was_tampered_with_is_found(city, tmp_path):
    import shutil

    shutil.copytree(city.path, tmp_path / "d")
    assert all(f.sound for f in validate(tmp_path / "d", sent=city.fingerprint))
    (tmp_path / "d" / "mapper.json").write_text((tmp_path / "d" / "mapper.json").read_text() + " ")
    assert [f.what for f in validate(tmp_path / "d") if not f.sound] == ["mapper.json is as it was written"]
    (tmp_path / "d" / "dataset.toml").unlink()
    assert not validate(tmp_path / "d")[0].sound


def _pings(n_users=12, days=8):
    times = pd.date_range("2024-01-01", periods=days * 48, freq="30min", tz="UTC")
    rows = [
        pd.DataFrame({"who": f"u{u}", "when": times, "y": 30.5 + 0.01 * u + 0.02 * (times.hour > 8), "x": 114.3})
        for u in range(n_users)
    ]
    return pd.concat(rows, ignore_index=True)


CASES = {
    "plain": (lambda p: p, {}),
    "renamed": (lambda p: p.rename(columns={"who": "device_id", "when": "gps_time", "y": "lat_wgs", "x": "lng_wgs"}), {}),
    "micro-degrees": (lambda p: p.assign(y=(p["y"] * 1e6).astype(int), x=(p["x"] * 1e6).astype(int)), {"scale": 1e-6}),
    "swapped": (lambda p: p.rename(columns={"y": "x", "x": "y"}), {"lat": "x", "lon": "y"}),
    "seconds": (lambda p: p.assign(when=p["when"].astype("datetime64[s, UTC]").astype(np.int64)), {"time_unit": "s"}),
    "days first": (lambda p: p.assign(when=p["when"].dt.strftime("%d/%m/%Y %H:%M")), {"time_format": "%d/%m/%Y %H:%M"}),
    "shuffled": (lambda p: p.sample(frac=1, random_state=0), {}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_suggested_command_prepares_it(case, tmp_path, monkeypatch):
    import shlex

    from click.testing import CliRunner

    from mobtk.cli import cli

    monkeypatch.chdir(tmp_path)
    change, expected = CASES[case]
    change(_pings()).to_csv("pings.csv", index=False)
    report, points = check("pings.csv")
    for key, value in expected.items():
        assert report.reading[key] == value, report.text()
    assert report.timezone == "Asia/Shanghai" and report.users == 12 and len(points) == 12 * 8 * 48
    assert report.order == ("not" if case == "shuffled" else "by user and time")
    words = shlex.split(report.command)
    result = CliRunner().invoke(cli, words[1:])
    assert result.exit_code == 0, f"{report.command}\n{result.output}{result.exception}"
    assert len(mobtk.Dataset("pings-dataset")) >= 12
    words[words.index("-o") + 1] = "again"
    drawn = CliRunner().invoke(cli, [*words[1:], "--page", "funnel.html"])
    assert drawn.exit_code == 0 and (tmp_path / "funnel.html").read_text().count("<img") == 2
    page = CliRunner().invoke(cli, ["data", "check", "pings.csv", "-o", "page.html", "--json"])
    assert page.exit_code == 0
    html = (tmp_path / "page.html").read_text()
    assert html.count("<img") >= 5 and "http://" not in html and "https://" not in html


def test_check_says_what_it_cannot_tell(tmp_path):
    pd.DataFrame({"a": ["x", "y"], "b": [1.5, 2.5]}).to_csv(tmp_path / "t.csv", index=False)
    report, _ = check(tmp_path / "t.csv")
    assert report.command is None and any("name it with --" in note for note in report.notes)
    with pytest.raises(BadInput, match="is not a file"):
        check(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="format 'csv' is not one of"):
        check(tmp_path / "t.csv", reading=Reading(format="csv"))


class _Server(http.server.BaseHTTPRequestHandler):
    content = b""
    cut = 0

    def do_GET(self):
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(self.content) - begin))
        self.end_headers()
        end = _Server.cut or len(self.content)
        _Server.cut = 0
        self.wfile.write(self.content[begin:end])

    def log_message(self, *_):
        pass


def test_fetch_resumes_verifies_and_unpacks(tmp_path):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        archive.writestr("inner/points.csv", "user,time,lat,lon\n" * 1000)
    _Server.content = (tmp_path / "made.zip").read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256(_Server.content).hexdigest()

    def public(checksum):
        url = f"http://127.0.0.1:{server.server_port}/made.zip"
        return Public("t", "CC0", "page", "me", "mobtk data prepare {}/inner -o x", url=url, checksum=checksum)

    try:
        with pytest.raises(BadInput, match="CC0.*--agree"):
            fetch("t", tmp_path / "f", source=public(None))
        _Server.cut = len(_Server.content) // 2
        with pytest.raises(BadInput, match="goes on where it stopped"):
            fetch("t", tmp_path / "f", agree=True, source=public(f"sha256:{digest}"))
        assert (tmp_path / "f" / "made.zip.part").stat().st_size == len(_Server.content) // 2
        then = fetch("t", tmp_path / "f", agree=True, source=public(f"sha256:{digest}"))
        assert then.endswith("f/inner -o x") and (tmp_path / "f" / "inner" / "points.csv").is_file()
        with pytest.raises(BadInput, match="was published; remove it"):
            fetch("t", tmp_path / "f", agree=True, source=public("sha256:00"))
        fetch("t", tmp_path / "g", agree=True, source=public(None))
        (tmp_path / "g" / "made.zip").write_bytes(b"other")
        with pytest.raises(BadInput, match="is not as it was when it came"):
            fetch("t", tmp_path / "g", agree=True, source=public(None))
    finally:
        server.shutdown()
    with pytest.raises(BadInput, match="cannot be fetched by a program"):
        fetch("cabspotting", tmp_path / "h")


def test_a_page_never_replaces_data(tmp_path):
    from click.testing import CliRunner

    from mobtk.cli import cli

    _pings(3, 2).to_csv(tmp_path / "pings.csv", index=False)
    before = (tmp_path / "pings.csv").read_bytes()
    for words in (["-o", str(tmp_path / "pings.csv")], ["-o", str(tmp_path / "pings.csv"), "--force"]):
        assert CliRunner().invoke(cli, ["data", "check", str(tmp_path / "pings.csv"), *words]).exit_code != 0
    assert (tmp_path / "pings.csv").read_bytes() == before
    (tmp_path / "page.html").write_text("mine")
    refused = CliRunner().invoke(cli, ["data", "check", str(tmp_path / "pings.csv"), "-o", str(tmp_path / "page.html")])
    assert "exists already" in str(refused.exception) and (tmp_path / "page.html").read_text() == "mine"


def test_our_own_splits_are_sound(city, tmp_path):
    again = resplit(city, tmp_path / "r", shares=(0.5, 0.2, 0.3))
    assert all(f.sound for f in validate(again.path))


@pytest.mark.parametrize("change", [{"cells": [[1, 2], [3]]}, {"home": ["a", "b"]}])
def test_a_folder_of_another_make_is_told_not_traced(change, city, tmp_path):
    import shutil

    shutil.copytree(city.path, tmp_path / "d")
    table = city.to_pandas().iloc[:2].drop(columns=list(change)).assign(**change)
    table.to_parquet(tmp_path / "d" / "sequences.parquet")
    assert not all(f.sound for f in validate(tmp_path / "d"))


def test_swapped_axes_and_decimal_commas_are_found(tmp_path):
    berlin = _pings(12, 3).assign(y=13.4, x=52.5 + np.arange(12 * 3 * 48) % 7 * 0.01)
    berlin.rename(columns={"y": "lat", "x": "lon", "who": "user", "when": "time"}).to_csv(tmp_path / "s.csv", index=False)
    report, _ = check(tmp_path / "s.csv")
    assert (report.reading["lat"], report.reading["lon"]) == ("lon", "lat") and report.timezone == "Europe/Berlin"
    commas = _pings(12, 3)
    for c in "xy":
        commas[c] = commas[c].map(lambda v: f"{v:.4f}".replace(".", ","))
    commas.to_csv(tmp_path / "c.csv", index=False, sep=";")
    report, points = check(tmp_path / "c.csv")
    assert "--decimal ," in report.command and len(points) == len(commas)


def test_exported_times_say_their_offset(tmp_path):
    _pings().to_csv(tmp_path / "p.csv", index=False)
    dataset = mobtk.prepare(tmp_path / "p.csv", tmp_path / "d", timezone="Asia/Shanghai", user="who", time="when",
                            lat="y", lon="x", period="day")  # fmt: skip
    export(dataset, tmp_path / "x.csv")
    assert pd.read_csv(tmp_path / "x.csv")["time"].str.endswith("+08:00").all()


def test_what_comes_compressed_is_unpacked_and_read_so(tmp_path):
    import gzip

    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "made.csv.gz").write_bytes(gzip.compress(b"user,time,lat,lon\n"))  # as if it had come
    public = Public("t", "CC0", "page", "me", "mobtk data prepare {}/made.csv -o x", url="http://127.0.0.1/made.csv.gz")
    then = fetch("t", tmp_path / "f", agree=True, source=public)
    assert (tmp_path / "f" / "made.csv").read_bytes() == b"user,time,lat,lon\n" and then.endswith("f/made.csv -o x")
    assert not any(".gz" in public.then for public in PUBLIC.values()), "a large one is not read compressed"
