"""Fields: every way in gives the same values, and what is wrong with a source is told in a sentence."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mobtk
from mobtk.data.dataset import Dataset
from mobtk.data.field import Field, cut
from mobtk.data.graph import make_edges
from mobtk.data.kinds import open_dataset
from mobtk.data.prepare_field import make_field
from mobtk.errors import BadInput

STEPS, NODES = 60, 4
TIMES = pd.date_range("2024-01-01", periods=STEPS, freq="1h")
VALUES = np.random.default_rng(0).normal(50, 10, (STEPS, NODES)).astype(np.float32)
PLACES = {"lat": 52.5 + 0.01 * np.arange(NODES), "lon": 13.4 + 0.01 * np.arange(NODES)}


def _wide(folder, times=TIMES, values=VALUES):
    file = folder / "wide.csv"
    pd.DataFrame(values, columns=[f"n{i}" for i in range(values.shape[1])]).assign(time=times).to_csv(file, index=False)
    return file


def _long(folder):
    table = pd.DataFrame(VALUES, columns=[f"n{i}" for i in range(NODES)]).assign(time=TIMES)
    table = table.melt("time", var_name="sensor", value_name="flow").sample(frac=1, random_state=0)
    table.to_parquet(folder / "long.parquet")
    return folder / "long.parquet"


def _npz(folder, **more):
    np.savez(folder / "a.npz", flow=VALUES, name=[f"n{i}" for i in range(NODES)], **PLACES, **more)
    return folder / "a.npz"


def _hdf5(folder):
    """As pandas writes its fixed format."""
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        group = file.create_group("df")
        group["axis0"] = np.array([f"n{i}" for i in range(NODES)], "S2")
        group["axis1"] = TIMES.to_numpy().astype("datetime64[ns]").astype(np.int64)
        group["block0_values"] = VALUES.astype(np.float64)
    return folder / "a.h5"


WAYS = {
    "wide": (_wide, {}),
    "long": (_long, {"node": "sensor"}),
    "npz": (_npz, {"step": "1h", "start": "2024-01-01"}),
    "npz that says when": (lambda folder: _npz(folder, start="2024-01-01T00:00", freq="1h"), {}),
    "hdf5": (_hdf5, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_field(way, tmp_path):
    write, options = WAYS[way]
    field = make_field(write(tmp_path), tmp_path / "field", **options)
    np.testing.assert_allclose(field.values[..., 0], VALUES, rtol=1e-6)
    assert field.nodes["name"].tolist() == [f"n{i}" for i in range(NODES)]
    assert (field.times() == TIMES).all()
    assert field.info.step == "1h"
    assert field.info.cuts == (36, 48, 60)


def test_it_is_memory_mapped_and_read_again(tmp_path):
    field = make_field(_wide(tmp_path), tmp_path / "field")
    assert isinstance(field.values, np.memmap)
    again = open_dataset(tmp_path / "field")
    assert isinstance(again, Field)
    assert again.fingerprint == field.fingerprint
    with pytest.raises(BadInput, match="holds a field and no sequences of cells"):
        Dataset(tmp_path / "field")


def test_a_dataset_is_no_field(city):
    assert isinstance(open_dataset(city.path), Dataset)
    with pytest.raises(BadInput, match="holds sequences and no field; make one of them with: mobtk data field"):
        Field(city.path)


def test_missing_numbers_and_steps_left_out_are_nan(tmp_path):
    values = VALUES.copy()
    values[5, 1] = -1
    keep = np.delete(np.arange(STEPS), [10, 11, 30])
    field = make_field(_wide(tmp_path, TIMES[keep], values[keep]), tmp_path / "field", missing=(-1,))
    assert len(field) == STEPS
    assert np.isnan(field.values[[10, 11, 30]]).all()
    assert np.isnan(field.values[5, 1, 0])
    assert np.isnan(field.values).sum() == 3 * NODES + 1
    assert field.info.missing == pytest.approx((3 * NODES + 1) / (STEPS * NODES))
    assert any(note.startswith("3 steps that were left out, such as after 2024-01-01 09:00:00") for note in field.info.notes)


def test_resampling_takes_means(tmp_path):
    field = make_field(_wide(tmp_path), tmp_path / "field", resample="2h")
    np.testing.assert_allclose(field.values[..., 0], VALUES.reshape(-1, 2, NODES).mean(1), rtol=1e-5)
    assert field.info.step == "2h"


def test_clock_says_step_of_the_day_and_day_of_the_week(tmp_path):
    clock = make_field(_wide(tmp_path), tmp_path / "field").clock()
    assert clock[[0, 23, 24, 59]].tolist() == [[0, 0], [23, 0], [0, 1], [11, 2]]  # the first of January 2024 is a Monday


def test_windows_foretell_every_step_of_a_split_but_the_first_of_training(tmp_path):
    field = make_field(_wide(tmp_path), tmp_path / "field")
    targets = {split: field.windows(split, 6, 3) + 6 for split in ("train", "valid", "test")}
    assert targets["train"].min() == 6
    assert targets["train"].max() + 3 == 36
    assert (targets["valid"].min(), targets["valid"].max() + 3) == (36, 48)
    assert (targets["test"].min(), targets["test"].max() + 3) == (48, 60)


def test_people_become_counts_inflow_and_outflow(city, tmp_path):
    field = make_field(city.path, tmp_path / "field", graph="nearest", neighbours=3)
    count, inflow, outflow = (np.asarray(field.values[..., i]) for i in range(3))
    moments = city.moments()
    present = np.bincount(((moments - moments.min()) // 3600).ravel(), minlength=len(field))
    np.testing.assert_allclose(count.sum(1), present)
    np.testing.assert_allclose(inflow.sum(1), outflow.sum(1))
    assert inflow.sum() == (city.cells[:, 1:] != city.cells[:, :-1]).sum()
    week = slice(1, 168)  # within a week nobody appears or vanishes
    np.testing.assert_allclose(np.diff(count[:168], axis=0), (inflow - outflow)[week])
    assert (count.sum(0) > 0).all()
    graph = field.graph()
    assert ((graph > 0).sum(1) == 3).all()


def test_a_field_of_a_coarser_level_has_the_same_people(city, tmp_path):
    fine, coarse = (make_field(city.path, tmp_path / f"level{i}", level=i) for i in (0, 1))
    assert coarse.info.shape[1] < fine.info.shape[1]
    np.testing.assert_allclose(coarse.values[..., 0].sum(1), fine.values[..., 0].sum(1))


def test_most_keeps_the_largest_nodes_and_their_part_of_the_graph(tmp_path):
    source = _npz(tmp_path, adj=np.arange(NODES * NODES, dtype=float).reshape(NODES, NODES))
    field = make_field(source, tmp_path / "field", key="flow", step="1h", most=2, graph="given", edges="adj")
    keep = np.sort(np.argsort(-VALUES.mean(0))[:2])
    np.testing.assert_allclose(field.values[..., 0], VALUES[:, keep], rtol=1e-6)
    expected = np.arange(NODES * NODES).reshape(NODES, NODES)[np.ix_(keep, keep)]
    assert (field.graph() == expected - np.diag(np.diag(expected))).all()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t[:2], {}, "has 2 steps; a field wants three at least"),
        (lambda t: pd.concat([t, t.iloc[[7]]]), {}, "has several rows for 2024-01-01 07:00:00"),
        (
            lambda t: t.assign(time=t["time"] + pd.to_timedelta(np.arange(len(t)) % 3, unit="min")),
            {},
            "are uneven: .* --resample",
        ),
        (
            lambda t: t.assign(time=TIMES[0] + pd.to_timedelta(np.r_[np.arange(30), 30 + 0.5 * np.arange(30)], unit="h")),
            {},
            "1h apart at first and 30min later",
        ),
        (
            lambda t: t.assign(time=TIMES[0] + pd.to_timedelta(np.r_[np.arange(30), 30 + 3 * np.arange(30)], unit="h")),
            {},
            "3h apart.* make them even with --resample 3h",
        ),
        (lambda t: t.assign(time="yesterday-ish"), {}, "holds no moments"),
        (lambda t: t.assign(time=t["time"].where(t.index != 4)), {}, "is empty in row 5"),
        (lambda t: t.drop(columns="time"), {}, "no single column of moments; name it with --time"),
        (lambda t: t, {"time": "when"}, "has no column 'when'; it has n0, n1"),
        (lambda t: t, {"step": "1h"}, "says when its steps are; leave --start and --step out"),
        (lambda t: t.assign(n0=np.inf), {}, "infinite values"),
        (lambda t: t, {"shares": (0.9, 0.2, 0.1)}, "not three parts of 1"),
        (lambda t: t, {"cuts": (10, 5, 60)}, "not three steps in order up to 60"),
        (lambda t: t, {"graph": "nearest"}, "wants the positions of the nodes; give a table of them with --positions"),
        (lambda t: t, {"shares": (float("nan"), 0.5, 0.5)}, "not three parts of 1"),
        (lambda t: t.assign(time=np.arange(len(t))), {}, "holds numbers and no moments"),
        (lambda t: t.assign(time=TIMES[0] + pd.to_timedelta(2.5 * np.arange(len(t)), unit="s")), {}, "no whole seconds"),
        (lambda t: t, {"resample": "0min"}, "--resample 0min is no duration"),
        (lambda t: t, {"graph": "small-world"}, "not one of none, given, distance, nearest"),
        (lambda t: t, {"resample": "often"}, "--resample often is no duration"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_told_in_a_sentence(change, options, message, tmp_path):
    table = pd.DataFrame(VALUES, columns=[f"n{i}" for i in range(NODES)]).assign(time=TIMES)
    change(table).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadInput, match=message) as error:
        make_field(tmp_path / "t.csv", tmp_path / "field", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "field").exists()


@pytest.mark.parametrize("step", ["-5min", "0min", "often", "2500ms"])
def test_a_step_that_is_none_is_refused(step, tmp_path):
    with pytest.raises(BadInput, match="make no steps|no whole seconds"):
        make_field(_npz(tmp_path), tmp_path / "field", step=step)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense"])
def test_an_array_that_is_none_is_refused(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        make_field(tmp_path / "a.npz", tmp_path / "field", step="1h")


def test_channels_of_an_array_are_chosen_by_name(tmp_path):
    np.savez(tmp_path / "pems.npz", data=np.stack([VALUES, 2 * VALUES, 3 * VALUES], -1))
    field = make_field(tmp_path / "pems.npz", tmp_path / "field", step="5min", value=["data0"])
    assert field.info.channels == ("data0",)
    np.testing.assert_allclose(field.values[..., 0], VALUES)
    with pytest.raises(BadInput, match="has no channel 'flow'; it has data0, data1, data2"):
        make_field(tmp_path / "pems.npz", tmp_path / "other", step="5min", value=["flow"])


def test_hdf5_of_microseconds(tmp_path):
    import h5py

    _hdf5(tmp_path)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["df/axis1"]
        file["df/axis1"] = TIMES.to_numpy().astype("datetime64[us]").astype(np.int64)
        file["df/axis1"].attrs["kind"] = "datetime64[us]"
    assert (make_field(tmp_path / "a.h5", tmp_path / "field").times() == TIMES).all()


def test_a_position_that_is_none_is_refused(tmp_path):
    pd.DataFrame({"name": [f"n{i}" for i in range(NODES)], "lat": [1, 2, 200, 4], "lon": 5.0}).to_csv(
        tmp_path / "p.csv", index=False
    )
    with pytest.raises(BadInput, match="node 'n2' has lat 200, which is no degree"):
        make_field(_wide(tmp_path), tmp_path / "field", positions=tmp_path / "p.csv")


def test_two_rows_of_a_node_and_moment_are_refused(tmp_path):
    table = pd.DataFrame({"time": TIMES.repeat(2), "sensor": "a", "flow": 1.0})
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadInput, match="two rows for node 'a' at 2024-01-01 00:00:00"):
        make_field(tmp_path / "t.csv", tmp_path / "field", node="sensor")


def test_still_and_empty_nodes_are_told(tmp_path):
    values = VALUES.copy()
    values[:, 1], values[:, 2] = 7, np.nan
    notes = make_field(_wide(tmp_path, values=values), tmp_path / "field").info.notes
    assert "node 'n1' never changes: its errors say nothing" in notes
    assert "node 'n2' was never measured: it is not scored" in notes


def test_too_few_steps_for_history_and_horizon(tmp_path):
    field = make_field(_wide(tmp_path), tmp_path / "field")
    with pytest.raises(BadInput, match="too few for a history of 30 and a horizon of 12; shorten them"):
        field.windows("train", 30, 12)
    with pytest.raises(BadInput, match="too few for a history of 30 and a horizon of 12"):
        mobtk.build(
            "forecaster", tmp_path / "run", data=field.path, changes={"forecast.history": 30, "forecast.horizon": 12}
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((3, 3)), "is of 3 x 3 nodes, the field has 4"),
        (np.full((4, 4), np.nan), "missing, infinite or negative"),
        (-np.ones((4, 4)), "missing, infinite or negative"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(matrix, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        make_field(_npz(tmp_path, adj=matrix), tmp_path / "field", key="flow", step="1h", graph="given", edges="adj")


def test_edges_from_a_table_by_name(tmp_path):
    edges = pd.DataFrame({"source": ["n0", "n2", "n1"], "target": ["n1", "n3", "n1"], "weight": [2.0, 3.0, 1.0]})
    edges.to_csv(tmp_path / "e.csv", index=False)
    field = make_field(_wide(tmp_path), tmp_path / "field", graph="given", edges=str(tmp_path / "e.csv"))
    graph = field.graph()
    assert graph[0, 1] == 2
    assert graph[2, 3] == 3
    assert np.count_nonzero(graph) == 2  # none from a node to itself
    edges.rename(columns={"source": "from", "target": "to", "weight": "cost"}).to_csv(tmp_path / "pems.csv", index=False)
    graph = make_field(_wide(tmp_path), tmp_path / "pems", graph="given", edges=str(tmp_path / "pems.csv")).graph()
    assert 1 > graph[0, 1] > graph[2, 3] > 0  # costs are distances: the nearer, the heavier
    pd.DataFrame({"source": ["n0"], "target": ["elsewhere"]}).to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(BadInput, match="target 'elsewhere' is no node of the field"):
        make_field(_wide(tmp_path), tmp_path / "other", graph="given", edges=str(tmp_path / "e.csv"))


def test_distances_make_weights_that_fall():
    """Four nodes in a row, a degree of latitude apart: 111.2 km."""
    nodes = pd.DataFrame({"name": list("abcd"), "lat": [0.0, 1, 2, 3], "lon": [0.0] * 4})
    edges = make_edges("distance", nodes, reach=230_000)
    assert sorted(zip(edges["source"], edges["target"], strict=True)) == [
        (0, 1), (0, 2), (1, 0), (1, 2), (1, 3), (2, 0), (2, 1), (2, 3), (3, 1), (3, 2)
    ]  # fmt: skip
    weight = edges.set_index(["source", "target"])["weight"]
    assert 1 > weight[0, 1] > weight[0, 2] > 0
    with pytest.raises(BadInput, match="no two nodes are within 10 m"):
        make_edges("distance", nodes, reach=10)


@given(steps=st.integers(3, 40), missing=st.sets(st.integers(0, 39)), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_whatever_steps_are_left_out_the_rest_stays(tmp_path_factory, steps, missing, seed):
    folder = tmp_path_factory.mktemp("field")
    keep = [t for t in range(steps) if t not in missing or t in (0, steps - 1)]
    order = np.random.default_rng(seed).permutation(keep)
    source = _wide(folder, TIMES[order], VALUES[order])
    gaps = np.diff(sorted(keep))
    if len(keep) < 3 or (len(np.unique(gaps)) > 1 and (gaps == 1).mean() < 0.9):
        with pytest.raises(BadInput, match="--resample|three at least"):
            make_field(source, folder / "field")
        return
    field = make_field(source, folder / "field")
    at = {t: i for i, t in enumerate(field.times())}
    for t in keep:
        np.testing.assert_allclose(field.values[at[TIMES[t]], :, 0], VALUES[t], rtol=1e-6)
    assert (~np.isnan(field.values).all((1, 2))).sum() == len(keep)


def test_cut_by_shares_and_by_steps():
    assert cut(100, (0.6, 0.2, 0.2)) == (60, 80, 100)
    assert cut(100, (0.8, 0.0, 0.2)) == (80, 80, 100)
    assert cut(17_420, (), (8640, 11520, 14400)) == (8640, 11520, 14400)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "values.npy").unlink(), "is damaged"),
        (lambda folder: np.save(folder / "values.npy", np.zeros((3, 3, 1), np.float32)), "is damaged: values.npy holds"),
        (lambda folder: (folder / "nodes.parquet").write_bytes(b"nonsense"), "is damaged"),
        (lambda folder: (folder / "dataset.toml").write_text('kind = "field"'), "is damaged"),
    ],
)
def test_a_damaged_field_says_so(damage, message, tmp_path):
    make_field(_wide(tmp_path), tmp_path / "field")
    damage(tmp_path / "field")
    with pytest.raises(BadInput, match=message):
        Field(tmp_path / "field")


def test_commands_make_check_and_show_a_field(tmp_path):
    def run(*args):
        done = subprocess.run([sys.executable, "-m", "mobtk", *args], capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    _npz(tmp_path)
    code, _, told = run("data", "field", "a.npz", "-o", "field")
    assert code == 2
    assert told == "mobtk: a.npz does not say how long a step is; say so with --step, such as --step 5min\n"
    code, out, _ = run(
        "data", "field", "a.npz", "-o", "field", "--step", "1h", "--start", "2024-01-01", "--graph", "distance"
    )
    assert code == 0
    assert "60 steps of 1h: 36 train, 12 valid, 12 test" in out
    assert run("data", "info", "field")[1] == out == run("data", "check", "field")[1]
    _wide(tmp_path)
    assert "wide.csv: " in run("data", "check", "--field", "wide.csv")[1]
    code, _, told = run(
        "data", "check", "--field", "a.npz", "--set", "step=1h", "--set", "graph=given", "--set", "edges=flow"
    )
    assert (code, told) == (2, "mobtk: graph flow is of 60 x 4 nodes, the field has 4\n")
