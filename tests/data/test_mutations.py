"""Good files gone bad: each is prepared with its loss told, or refused in one sentence; never a trace, never a rest."""

import gzip
import io
import zipfile
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mobtk

HEAD = "user,time,lat,lon\n"


def _good(users=4, days=2):
    times = pd.date_range("2024-01-01", periods=days * 24, freq="1h", tz="UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = [
        f"u{u},{t},{52.5 + 0.01 * u + 0.02 * (i % 24 > 8):.6f},{13.3 + 0.01 * u:.6f}"
        for u in range(users)
        for i, t in enumerate(times)
    ]
    return HEAD + "\n".join(rows) + "\n"


GOOD = _good()
LINES = GOOD.splitlines(keepends=True)


def _each(change):
    return HEAD + "".join(change(i, *line.strip().split(",")) + "\n" for i, line in enumerate(LINES[1:]))


def _parquet(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def _zip(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def _liar():
    """An array that says it has ten billion rows."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**10, 2)})
    return _zip("a.npy", buffer.getvalue())


FRAME = pd.read_csv(io.StringIO(GOOD))
TEXTS = {
    "as it is": GOOD,
    "truncated in a line": GOOD[:-17],
    "truncated in the header": GOOD[:9],
    "byte order mark": "\ufeff" + GOOD,
    "utf-16": GOOD.encode("utf-16"),
    "latin-1 name": GOOD.replace("u1", "ü1").encode("latin-1"),
    "utf-8 names": GOOD.replace("u1", "汉字"),
    "semicolons": GOOD.replace(",", ";"),
    "tabs": GOOD.replace(",", "\t"),
    "mixed separators": HEAD + "".join(line.replace(",", ";") if i % 2 else line for i, line in enumerate(LINES[1:])),
    "decimal commas": GOOD.replace(",", ";").replace(".", ","),
    "quoted": _each(lambda i, u, t, a, o: f'"{u}","{t}","{a}","{o}"'),
    "quoted newline": _each(lambda i, u, t, a, o: f'"{u}\nx",{t},{a},{o}'),
    "windows line ends": GOOD.replace("\n", "\r\n"),
    "old mac line ends": GOOD.replace("\n", "\r"),
    "blank lines": GOOD.replace("\n", "\n\n"),
    "no end of line at the end": GOOD.rstrip("\n"),
    "a column too many": _each(lambda i, u, t, a, o: f"{u},{t},{a},{o}" + (",x" if i % 5 == 0 else "")),
    "a column too few": _each(lambda i, u, t, a, o: f"{u},{t},{a}" if i % 5 == 0 else f"{u},{t},{a},{o}"),
    "no header": "".join(LINES[1:]),
    "header twice": HEAD + GOOD,
    "header only": HEAD,
    "column names twice": GOOD.replace("lat,lon", "lat,lat", 1),
    "nothing": "",
    "only newlines": "\n\n\n",
    "one point": "".join(LINES[:2]),
    "two points": "".join(LINES[:3]),
    "one user": "".join(LINES[:40]),
    "all the same point": _each(lambda i, u, t, a, o: f"{u},{t},52.5,13.4"),
    "all the same row": HEAD + LINES[1] * 100,
    "all at one moment": _each(lambda i, u, t, a, o: f"{u},2024-01-01T00:00:00Z,{a},{o}"),
    "backwards": HEAD + "".join(reversed(LINES[1:])),
    "empty users": _each(lambda i, u, t, a, o: f",{t},{a},{o}"),
    "some empty users": _each(lambda i, u, t, a, o: f"{u if i % 3 else ''},{t},{a},{o}"),
    "empty times": _each(lambda i, u, t, a, o: f"{u},,{a},{o}"),
    "empty latitudes": _each(lambda i, u, t, a, o: f"{u},{t},,{o}"),
    "nan": _each(lambda i, u, t, a, o: f"{u},{t},{'nan' if i % 4 == 0 else a},{o}"),
    "inf": _each(lambda i, u, t, a, o: f"{u},{t},{'inf' if i % 4 == 0 else a},{'-inf' if i % 7 == 0 else o}"),
    "words for numbers": _each(lambda i, u, t, a, o: f"{u},{t},{'north' if i % 4 == 0 else a},{o}"),
    "only words for numbers": _each(lambda i, u, t, a, o: f"{u},{t},north,east"),
    "huge numbers": _each(lambda i, u, t, a, o: f"{u},{t},{'1e400' if i % 4 == 0 else a},{o}"),
    "degrees and minutes": _each(lambda i, u, t, a, o: f"{u},{t},52°30'N,13°18'E"),
    "swapped": GOOD.replace("lat,lon", "lon,lat", 1),
    "micro-degrees": _each(lambda i, u, t, a, o: f"{u},{t},{float(a) * 1e6:.0f},{float(o) * 1e6:.0f}"),
    "longitudes to 360": _each(lambda i, u, t, a, o: f"{u},{t},{a},{float(o) + 340:.5f}"),
    "poles": _each(lambda i, u, t, a, o: f"{u},{t},{90 if i % 2 else -90},{o}"),
    "one pole": _each(lambda i, u, t, a, o: f"{u},{t},90,{(i * 37) % 180}"),
    "antimeridian": _each(lambda i, u, t, a, o: f"{u},{t},{a},{179.99 if i % 2 else -179.99}"),
    "null island": _each(lambda i, u, t, a, o: f"{u},{t},{0 if i % 9 == 0 else a},{0 if i % 9 == 0 else o}"),
    "only null island": _each(lambda i, u, t, a, o: f"{u},{t},0,0"),
    "before 1970": GOOD.replace("2024-01", "1931-01"),
    "in 2100": GOOD.replace("2024-01", "2100-01"),
    "in 9999": GOOD.replace("2024-01", "9999-12"),
    "in the year 0": GOOD.replace("2024-01", "0000-01"),
    "one in 2100": _each(lambda i, u, t, a, o: f"{u},{t.replace('2024', '2100') if i == 3 else t},{a},{o}"),
    "local and utc mixed": _each(lambda i, u, t, a, o: f"{u},{t if i % 2 else t[:-1]},{a},{o}"),
    "offsets mixed": _each(lambda i, u, t, a, o: f"{u},{t if i % 2 else t[:-1] + '+05:30'},{a},{o}"),
    "days first": _each(lambda i, u, t, a, o: f"{u},{t[8:10]}/{t[5:7]}/{t[:4]} {t[11:16]},{a},{o}"),
    "dates only": _each(lambda i, u, t, a, o: f"{u},{t[:10]},{a},{o}"),
    "clocks only": _each(lambda i, u, t, a, o: f"{u},{t[11:19]},{a},{o}"),
    "times of words": _each(lambda i, u, t, a, o: f"{u},yesterday,{a},{o}"),
    "some times of words": _each(lambda i, u, t, a, o: f"{u},{t if i % 6 else 'soon'},{a},{o}"),
    "seconds": _each(lambda i, u, t, a, o: f"{u},{1_704_067_200 + 3600 * (i % 48)},{a},{o}"),
    "milliseconds": _each(lambda i, u, t, a, o: f"{u},{1_704_067_200_000 + 3_600_000 * (i % 48)},{a},{o}"),
    "small numbers for times": _each(lambda i, u, t, a, o: f"{u},{i},{a},{o}"),
    "real numbers for times": _each(lambda i, u, t, a, o: f"{u},{1_704_067_200 + 3600 * (i % 48)}.25,{a},{o}"),
    "numbers beyond time": _each(lambda i, u, t, a, o: f"{u},{10**18 * 9},{a},{o}"),
    "zero bytes": GOOD.replace("u1", "u\x001"),
    "a binary file": bytes(range(256)) * 40,
    "a line of two megabytes": "x" * (2 << 20),
    "a field of a megabyte": GOOD + f"u0,2024-01-01T00:30:00Z,52.5,{'9' * (1 << 20)}\n",
    "ten thousand columns": ",".join(f"c{i}" for i in range(10_000)) + "\n" + ",".join("1" for _ in range(10_000)) + "\n",
    "paths for names": GOOD.replace("u1", "../../etc/passwd"),
    "formulas for names": GOOD.replace("u1", "=cmd|' /C calc'!A0"),
    "long names": GOOD.replace("u1", "u" * 5000),
    "html": "<html><body>404 not found</body></html>",
    "json": '{"user": "a", "lat": 1.0}',
}  # fmt: skip
FILES = {
    **{f"{name}.csv": content.encode() if isinstance(content, str) else content for name, content in TEXTS.items()},
    "packed.csv.gz": gzip.compress(GOOD.encode()),
    "packed and cut.csv.gz": gzip.compress(GOOD.encode())[:-40],
    "not packed.csv.gz": GOOD.encode(),
    "packed zeros.csv.gz": gzip.compress(b"\0" * (20 << 20)),
    "zipped.csv": _zip("a.csv", GOOD),
    "parquet.parquet": _parquet(FRAME),
    "cut.parquet": _parquet(FRAME)[:-200],
    "cut in the middle.parquet": _parquet(FRAME)[: len(_parquet(FRAME)) // 2],
    "turned bytes.parquet": _parquet(FRAME)[:400] + b"\xff" * 60 + _parquet(FRAME)[460:],
    "text as parquet.parquet": GOOD.encode(),
    "parquet as text.csv": _parquet(FRAME),
    "no rows.parquet": _parquet(FRAME.iloc[:0]),
    "lists.parquet": _parquet(FRAME.assign(lat=[[1.0, 2.0]] * len(FRAME))),
    "nulls.parquet": _parquet(FRAME.assign(user=None)),
    "dates.parquet": _parquet(FRAME.assign(time=pd.to_datetime(FRAME["time"]).dt.date)),
    "words for numbers.parquet": _parquet(FRAME.assign(lat=FRAME["lat"].astype(str))),
    "a bomb.gpkg": _zip("a.gpkg", b"\0" * (10 << 20)),
    "no database.gpkg": b"SQLite format 3\0" + b"\0" * 4000,
    "text as geojson.geojson": GOOD.encode(),
    "empty.geojson": b'{"type": "FeatureCollection", "features": []}',
    "a liar.npz": _liar(),
    "no arrays.npz": _zip("a.txt", "hello"),
    "broken.gpx": b"<gpx><trk><trkseg><trkpt lat='1'",
}


def _assert_survives(name, content, folder):
    """Prepared, or refused in one sentence; and nothing else is left."""
    file = folder / name
    file.write_bytes(content)
    sentence = None
    try:
        dataset = mobtk.prepare(file, folder / "out", period="day", coverage=0.1)
    except mobtk.MobtkError as error:
        sentence = str(error)
    if sentence is not None:
        assert sentence.strip() and "\n" not in sentence and len(sentence) < 2000
        assert sorted(p.name for p in folder.iterdir()) == [name], "nothing half-written"
        return None
    funnel = dataset.info.funnel
    assert all(b.points <= a.points for a, b in pairwise(funnel)), "a funnel only narrows"
    assert sorted(p.name for p in folder.iterdir()) == sorted([name, "out"])
    return dataset


def test_there_are_a_hundred():
    assert len(FILES) >= 100


@pytest.mark.parametrize("name", list(FILES))
def test_a_mutation_is_prepared_or_refused(name, tmp_path):
    _assert_survives(name, FILES[name], tmp_path)


@pytest.mark.parametrize(
    ("name", "step", "lost"),
    [("nan", "complete", 48), ("words for numbers", "complete", 48), ("some times of words", "times read", 32),
     ("a column too many", "whole lines", 39), ("longitudes to 360", None, 0), ("poles", None, 0)],
)  # fmt: skip
def test_a_loss_is_told_in_its_own_line(name, step, lost, tmp_path):
    dataset = _assert_survives(f"{name}.csv", FILES[f"{name}.csv"], tmp_path)
    if step is not None:
        assert {loss.step: loss.why.split(" ")[0] for loss in dataset.info.funnel}[step] == f"{lost}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_text(tmp_path_factory, data):
    content = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    _assert_survives("damaged.csv", bytes(content), tmp_path_factory.mktemp("damage"))
