"""Trajectories: every point of the files is in one, or the funnel says why not; and each is read once in a pass."""

import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mobtk.data import trajectories as module
from mobtk.data.clean import Rules
from mobtk.data.dataset import Dataset
from mobtk.data.field import Field
from mobtk.data.formats import Reading
from mobtk.data.kinds import open_dataset
from mobtk.data.loader import TrajectoryStream
from mobtk.data.prepare_trajectories import Cutting, make_trajectories
from mobtk.data.trajectories import Trajectories, card
from mobtk.data.walks import make_walks
from mobtk.errors import BadInput

BEGIN = pd.Timestamp("2024-05-06T08:00:00Z")


def _points(folder, seconds, users=None, name="p.parquet"):
    """A file of points at these seconds, moving north by a metre a second."""
    seconds = np.asarray(seconds, np.float64)
    users = ["a"] * len(seconds) if users is None else users
    time = BEGIN + pd.to_timedelta(seconds, unit="s")
    table = pd.DataFrame({"user": users, "time": time, "lat": 52 + seconds / 111_195, "lon": 13.0})
    table.to_parquet(folder / name)
    return folder / name


def _made(folder, seconds, users=None, **cutting):
    users = [u for u in ("a", "b", "c") for _ in seconds] if users is None else users
    seconds = np.tile(seconds, 3) if len(users) != len(seconds) else seconds
    file = _points(folder, seconds, users)
    return make_trajectories(file, folder / "out", cutting=Cutting(**{"min_points": 2, **cutting}), replace=True)


def test_a_gap_ends_a_trajectory_and_one_as_long_as_the_limit_does_not(tmp_path):
    made = _made(tmp_path, [0, 10, 20, 320, 330, 631, 640], gap=300)
    own = [t for t in made if t.user == "a"]
    assert [((t.time - t.time[0]) / 1e6).tolist() for t in own] == [[0, 10, 20, 320, 330], [0, 9]]


def test_points_come_back_as_they_were_measured(tmp_path):
    seconds = np.arange(200) * 13.25
    made = _made(tmp_path, seconds, gap=3000)
    for t in made:
        assert np.array_equal(t.time, BEGIN.value // 1000 + (seconds * 1e6).astype(np.int64))
        assert np.array_equal(t.lat, 52 + seconds / 111_195)


def test_long_ones_are_cut_short_ones_go_and_the_funnel_says_so(tmp_path):
    made = _made(tmp_path, [*range(25), 1000, 2000, 2001], max_points=10, min_points=5, gap=60)
    assert sorted(len(t) for t in made) == [*[8] * 6, *[9] * 3]
    last = made.info.funnel[-1]
    assert (last.points, last.sequences, last.why.split()[0]) == (75, 9, "9")
    assert made.info.points == 75 == sum(map(len, made))


def test_points_may_be_thinned(tmp_path):
    made = _made(tmp_path, [0, 1, 2, 5, 9, 10, 19, 31], every=10, gap=100)
    assert [((t.time - t.time[0]) / 1e6).tolist() for t in made] == [[0, 10, 31]] * 3
    assert next(loss for loss in made.info.funnel if loss.step == "every 10 s").points == 9


def test_thinning_makes_no_gaps(tmp_path):
    made = _made(tmp_path, [*range(0, 60), *range(649, 709)], every=60, gap=600)
    assert [((t.time - t.time[0]) / 1e6).tolist() for t in made] == [[0, 649, 660]] * 3


def test_a_trajectory_is_found_by_number_and_travels_by_pickle(tmp_path):
    made = pickle.loads(pickle.dumps(_made(tmp_path, np.arange(0, 100, 5))))
    assert np.array_equal(made[-1].time, made[len(made) - 1].time) and made[0].time.flags.writeable
    with pytest.raises(IndexError, match="no trajectory 3"):
        made[3]


@pytest.mark.parametrize("split", ["user", "time"])
def test_a_split_parts_users_or_time(tmp_path, split):
    rng = np.random.default_rng(1)
    users = [f"u{i}" for i in range(20) for _ in range(30)]
    seconds = np.concatenate([np.sort(rng.uniform(0, 80_000, 3))[:, None] + np.arange(10) * 5 for _ in range(20)]).ravel()
    made = make_trajectories(
        _points(tmp_path, seconds, users),
        tmp_path / "out",
        cutting=Cutting(min_points=2),
        split=split,
        shares=(0.5, 0.25, 0.25),
    )
    held = {s: [made[r] for r in made.rows(s)] for s in ("train", "valid", "test")}
    assert {s: len(t) for s, t in held.items()} == made.info.split
    if split == "user":
        names = [{t.user for t in some} for some in held.values()]
        assert sum(map(len, names)) == 20
    else:
        ends = [[t.time[-1] for t in some] for some in held.values()]
        assert max(ends[0]) <= min(ends[1]) and max(ends[1]) <= min(ends[2])


def test_the_same_comes_out_in_memory_in_shards_and_whatever_the_order_of_rows(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    users = [f"u{i}" for i in range(12) for _ in range(50)]
    seconds = np.concatenate([np.sort(rng.uniform(0, 9000, 50)) for _ in range(12)])
    file = _points(tmp_path, seconds, users)
    pd.read_parquet(file).sample(frac=1, random_state=0).to_parquet(tmp_path / "mixed.parquet")
    first = make_trajectories(file, tmp_path / "a")
    second = make_trajectories(tmp_path / "mixed.parquet", tmp_path / "b")
    monkeypatch.setattr("mobtk.data.tracks.IN_MEMORY", 100)
    monkeypatch.setattr("mobtk.data.tracks.SHARD", 100)
    third = make_trajectories(file, tmp_path / "c")
    assert first.info.sha256 == second.info.sha256 == third.info.sha256


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(1, 300))
def test_row_groups_hold_whole_trajectories_of_about_so_many_points(tmp_path_factory, lengths, size):
    import pyarrow as pa

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROUP", size)
        table = pa.table(
            {
                "user": [str(i) for i in range(len(lengths))],
                "split": ["train"] * len(lengths),
                **{name: [np.arange(n) for n in lengths] for name in ("time", "lat", "lon")},
            }
        )
        folder = tmp_path_factory.mktemp("groups") / "t"
        made = Trajectories.write(folder, module.TrajectoriesInfo("t"), [table.slice(0, 3), table.slice(3)])
        groups = [sum(lengths[a:b]) for a, b in pairwise(made._firsts)]
        assert all(g < size + max(lengths) for g in groups)
        assert all(a + b > size for a, b in pairwise(groups[:-1]))
        assert [len(t) for t in made] == lengths
        rows = made.mixed(made.rows("train"), np.random.default_rng(0))
        assert sorted(rows) == list(range(len(lengths)))


def test_a_pass_reads_each_trajectory_once_and_few_row_groups_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 40)
    monkeypatch.setattr(module, "MIXED", 3)
    made = make_trajectories(
        _points(tmp_path, np.tile(np.arange(10), 120), [f"u{i:03d}" for i in range(120) for _ in range(10)]),
        tmp_path / "out",
    )
    rows = made.rows("train")
    a, b, again = (made.mixed(rows, np.random.default_rng(seed)) for seed in (0, 1, 0))
    assert sorted(a) == sorted(b) == sorted(rows)
    assert np.array_equal(a, again) and not np.array_equal(a, b)
    read = []
    whole = made._file.read_row_group
    made._file = type("Spy", (), {"read_row_group": lambda self, i, **more: read.append(i) or whole(i, **more)})()
    for row in a:
        made[int(row)]
        assert len(made._held) <= 4
    assert len(read) == len(set(read))


def test_the_card_says_what_a_step_is(tmp_path):
    told = card(_made(tmp_path, np.arange(0, 100, 5), gap=60))
    assert (told["rows"], told["users"], told["points"], told["points_each"]) == (3, 3, 60, 20)
    assert told["seconds_a_step"] == 5
    assert told["metres_a_step"] == pytest.approx(5, rel=1e-3)
    assert told["from"] == "2024-05-06 08:00:00"
    assert told["area"][0] == [52.0, 13.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cutting": Cutting(gap=0)}, "--gap is a duration above 0"),
        ({"cutting": Cutting(every=700)}, "--every one below it"),
        ({"cutting": Cutting(min_points=1)}, "2 points at least"),
        ({"cutting": Cutting(min_points=9, max_points=8)}, "from 2 on in that order"),
        (
            {"cutting": Cutting(gap=4)},
            "without a gap of 4 s; the longest has 1: try a longer --gap$",
        ),
        ({"rules": Rules(since="2030-01-01")}, "no point of .* is left after the step 'in time"),
        ({"reading": Reading(format="auto", lat="y")}, "no column 'y'"),
        ({"timezone": "Mars/Base"}, "Mars/Base"),
        ({"cutting": Cutting(every=1e-8)}, "--every one below it"),
        ({"split": "time"}, "a shorter --gap or fewer --max-points"),
        ({"shares": (0.5, 0.5, 0.5)}, "three numbers that sum to 1"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(tmp_path, change, said):
    file = _points(tmp_path, np.tile(np.arange(0, 100, 5), 3), [u for u in "abc" for _ in range(20)])
    with pytest.raises(BadInput, match=said):
        make_trajectories(file, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_data_of_another_kind_says_what_it_is(tmp_path, city):
    made = _made(tmp_path, np.arange(0, 100, 5))
    assert isinstance(open_dataset(made.path), Trajectories)
    for kind in (Dataset, Field):
        with pytest.raises(BadInput, match="holds trajectories and no"):
            kind(made.path)
    with pytest.raises(BadInput, match="holds no trajectories"):
        Trajectories(city.path)
    (made.path / "trajectories.parquet").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="damaged"):
        Trajectories(made.path)


def test_the_command_does_the_same(tmp_path):
    file = _points(tmp_path, np.tile(np.arange(0, 100, 5), 3), [u for u in "abc" for _ in range(20)])
    command = [sys.executable, "-m", "mobtk", "data", "trajectories", file, "-o", tmp_path / "out", "--gap", "30s"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 trajectories of 3 users, 60 points" in done.stdout
    for wrong, said in (
        (["check", tmp_path / "out"], "holds trajectories already"),
        (["info", tmp_path / "out", "-o", tmp_path / "page.html"], "leave -o out"),
        (["trajectories", file, "-o", tmp_path / "x", "--gap", "600"], "is no duration; try 5min"),
    ):
        refused = subprocess.run([*command[:4], *wrong], capture_output=True, text=True)
        assert refused.returncode == 2 and said in refused.stderr
    told = subprocess.run([*command[:4], "info", tmp_path / "out"], capture_output=True, text=True)
    assert told.stdout.splitlines()[:3] == done.stdout.splitlines()[:3]


def _names(batches):
    return [t.user for batch in batches for t in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_brings_each_once_and_goes_on_where_it_was(tmp_path, workers):
    data = make_walks(tmp_path / "walks", n=200)
    stream = TrajectoryStream(data.path, batch=16, seed=3)
    whole = _names(DataLoader(stream, batch_size=None, num_workers=workers))
    assert sorted(whole) == sorted(data[int(row)].user for row in data.rows("train"))
    stream.begin(0, done=4)
    assert _names(DataLoader(stream, batch_size=None, num_workers=workers)) == whole[64:]
    stream.begin(1)
    other = _names(DataLoader(stream, batch_size=None, num_workers=workers))
    assert other != whole
    assert sorted(other) == sorted(whole)
    assert whole == _names(DataLoader(TrajectoryStream(data.path, batch=16, seed=3), batch_size=None))


def test_ranks_of_a_stream_share_it(tmp_path, monkeypatch):
    data = make_walks(tmp_path / "walks", n=100)
    whole = list(TrajectoryStream(data.path, batch=8))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        parts.append(list(TrajectoryStream(data.path, batch=8)))
    assert [_names([b]) for b in parts[0]] == [_names([b]) for b in whole[::2]]
    assert [_names([b]) for b in parts[1]] == [_names([b]) for b in whole[1::2]]


def test_walks_are_as_they_are_said_to_be(tmp_path):
    data = make_walks(tmp_path / "walks", n=300)
    lengths = [len(t) for t in data]
    assert min(lengths) >= 10 and max(lengths) <= 48
    seconds = np.concatenate([np.diff(t.time) for t in data]) / 1e6
    assert seconds.min() >= 1 and seconds.max() <= 59
    assert len({(t.lat[0], t.lon[0]) for t in data}) == 300  # no two are alike
    again = make_walks(tmp_path / "again", n=300)
    assert again.info.sha256 == data.info.sha256
    with pytest.raises(BadInput, match="10 at least"):
        make_walks(tmp_path / "few", n=3)
