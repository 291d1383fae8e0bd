"""Size: memory or folder, one process or several, killed or not, the result is the same to the bit."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import mobtk
from mobtk.data import tracks


@pytest.fixture
def points(tmp_path):
    """Some 60,000 points of 40 people, by time and not by user, with repeats and a few faults."""
    rng = np.random.default_rng(0)
    n = 60_000
    frame = pd.DataFrame(
        {
            "user": [f"u{u}" for u in rng.integers(0, 40, n)],
            "time": pd.Timestamp("2024-01-01", tz="UTC")
            + pd.to_timedelta(np.sort(rng.integers(0, 14 * 86_400, n)), unit="s"),
            "lat": 52.5 + rng.normal(0, 0.02, n),
            "lon": 13.4 + rng.normal(0, 0.02, n),
        }
    )
    frame.loc[::1000, "lat"] = np.nan
    frame.to_csv(tmp_path / "p.csv", index=False)
    return tmp_path / "p.csv"


def _bytes(dataset):
    return [(dataset.path / f).read_bytes() for f in ("sequences.parquet", "mapper.json")]


def _small(monkeypatch):
    monkeypatch.setattr(tracks, "IN_MEMORY", 1000)
    monkeypatch.setattr(tracks, "SHARD", 10_000)
    monkeypatch.setattr("mobtk.data.sources.BLOCK", 300_000)


def test_memory_and_folder_give_the_same(points, tmp_path, monkeypatch):
    options = {"timezone": "Europe/Berlin", "max_speed": 20_000, "min_users": 2}
    memory = mobtk.prepare(points, tmp_path / "memory", **options)
    _small(monkeypatch)
    folder = mobtk.prepare(points, tmp_path / "folder", **options)
    assert _bytes(memory) == _bytes(folder)
    assert [(f.users, f.points, f.sequences) for f in memory.info.funnel] == [
        (f.users, f.points, f.sequences) for f in folder.info.funnel
    ]
    assert not (tmp_path / ".folder.preparing").exists()


def test_visits_are_the_same_from_memory_and_from_a_folder(tmp_path, monkeypatch):
    from mobtk.data import shards
    from mobtk.data.visits import visits
    from mobtk.errors import TryAgain

    time = pd.date_range("2024-01-01", periods=2000, freq="5min", tz="UTC")
    lat = 52.5 + 0.01 * (np.arange(2000) // 50 % 3)
    walks = [pd.DataFrame({"user": f"u{u}", "time": time, "lat": lat, "lon": 13.4 + 0.01 * u}) for u in range(8)]
    pd.concat(walks).sort_values("time").to_csv(tmp_path / "w.csv", index=False)
    visits(tmp_path / "w.csv", tmp_path / "memory")
    _small(monkeypatch)
    run = shards.Workers.run
    monkeypatch.setattr(shards.Workers, "run", lambda *a: (run(*a), (_ for _ in ()).throw(TryAgain("full")))[0])
    with pytest.raises(TryAgain):
        visits(tmp_path / "w.csv", tmp_path / "folder")
    assert (tmp_path / ".folder.preparing").is_dir() and not (tmp_path / "folder").exists()
    monkeypatch.setattr(shards.Workers, "run", run)
    visits(tmp_path / "w.csv", tmp_path / "folder")
    for name in ("stays", "trips", "places", "people"):
        a, b = (pd.read_parquet(tmp_path / where / f"{name}.parquet") for where in ("memory", "folder"))
        assert len(a) and a.equals(b)


def test_order_of_rows_does_not_matter(points, tmp_path):
    frame = pd.read_csv(points).drop_duplicates(["user", "time"])
    frame.to_parquet(tmp_path / "a.parquet")
    frame.sort_values(["user", "time"]).to_parquet(tmp_path / "b.parquet")
    a, b = (mobtk.prepare(tmp_path / f"{x}.parquet", tmp_path / x) for x in "ab")
    assert _bytes(a) == _bytes(b)


def test_a_killed_job_goes_on_where_it_was(points, tmp_path):
    code = (
        "import sys, time, mobtk\n"
        "from mobtk.data import tracks, sources\n"
        "tracks.IN_MEMORY, tracks.SHARD, sources.BLOCK = 1000, 10_000, 300_000\n"
        "slow, track = len(sys.argv) > 3, tracks._track\n"
        "def step(job, s):\n"
        "    track(job, s)\n"
        "    print('done', s, flush=True)\n"
        "    time.sleep(1000 if slow and s else 0)\n"
        "tracks._track = step\n"
        "mobtk.prepare(sys.argv[1], sys.argv[2])\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(points), str(out)]
    job = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert job.stdout is not None
    assert [job.stdout.readline() for _ in range(2)] == ["done 0\n", "done 1\n"]
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not out.exists() and (tmp_path / ".out.preparing").is_dir()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "done 0" not in again.stdout and "done 2" in again.stdout, "what was done is not done again"
    assert not (tmp_path / ".out.preparing").exists()
    assert _bytes(mobtk.Dataset(out)) == _bytes(mobtk.prepare(points, tmp_path / "whole", name="out"))


@pytest.mark.slow
def test_a_killed_worker_costs_a_part_and_not_the_run(tmp_path):
    pytest.importorskip("distributed")
    from mobtk.data.city import write_points

    write_points(tmp_path / "p.parquet", weeks=400, order="time")
    one = mobtk.prepare(tmp_path / "p.parquet", tmp_path / "one", timezone="Asia/Shanghai")
    command = [sys.executable, "-m", "mobtk", "data", "prepare", str(tmp_path / "p.parquet"), "-o", str(tmp_path / "two")]
    job = subprocess.Popen([*command, "--timezone", "Asia/Shanghai", "--workers", "2"], start_new_session=True)
    work = tmp_path / ".two.preparing"
    while job.poll() is None and len(list(work.glob("read-*.json"))) < 1:
        time.sleep(0.05)
    for child in _children(job.pid)[-1:]:
        os.kill(child, signal.SIGKILL)
    assert job.wait() == 0
    assert _bytes(one) == _bytes(mobtk.Dataset(tmp_path / "two"))


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        own = [int(p) for p in file.read().split()]
    return own + [c for p in own for c in _children(p)]
