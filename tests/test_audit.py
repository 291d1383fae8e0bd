"""The audit: known answers of its figures, and whether it tells a parrot from a generator."""

import numpy as np
import pytest
from click.testing import CliRunner

import mobtk
from mobtk.audit import FIGURES, _attack, audit, unique_by_points
from mobtk.cli import cli
from mobtk.data.canaries import plant
from mobtk.data.dataset import fixed_list
from mobtk.errors import BadInput
from mobtk.kernels import nearest_sequence


def test_the_nearest_sequence():
    a = np.array([[1, 2, 3, 4], [5, 5, 5, 5]], np.int32)
    assert nearest_sequence(a, np.array([[1, 2, 3, 9], [0, 0, 0, 0]], np.int32))[1].tolist() == [1, 4]


def test_attacks_on_known_scores():
    rng = np.random.default_rng(0)
    perfect = _attack("a", np.arange(100.0, 200), np.arange(100.0), rng)
    assert perfect["a_auc"] == 1 and perfect["a_tpr"] == 1
    blind = _attack("a", np.zeros(100), np.zeros(100), rng)
    assert blind["a_auc"] == 0.5 and blind["a_tpr"] == pytest.approx(0.01)
    one = np.r_[np.full(30, 9.0), np.zeros(70)]
    assert _attack("a", one, np.zeros(100), rng)["a_tpr"] == pytest.approx(0.3 + 0.7 * 0.01)


def test_uniqueness_by_points():
    rng = np.random.default_rng(0)
    alike = np.zeros((5, 24), np.int32)
    assert unique_by_points(alike, (1, 4), rng) == {"1": 0.0, "4": 0.0}
    apart = np.arange(5)[:, None] + np.zeros((5, 24), np.int32)
    assert unique_by_points(apart, (1,), rng) == {"1": 1.0}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    dataset = plant(mobtk.prepare_city(folder / "city", weeks=400), folder / "planted", users=4, times=2)
    return mobtk.train(mobtk.build("tiny", folder / "run", data=dataset.path))


def _write(run, cells, file):
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {b"mobtk": json.dumps({"mapper": run.data["mapper"]}).encode()}
    pq.write_table(pa.table({"id": np.arange(len(cells)), "cells": fixed_list(cells)}).replace_schema_metadata(about), file)
    return file


def test_canaries_stand_in_the_training_split_only(planted):
    dataset = planted.dataset()
    canary = np.char.startswith(dataset.users.astype(str), "canary-")
    assert canary.sum() == 8 and set(dataset.column("split")[canary]) == {"train"}
    assert len(np.unique(dataset.cells[canary], axis=0)) == 4


def test_a_parrot_is_told_from_a_stranger(planted, tmp_path):
    dataset = planted.dataset()
    train, test = dataset.rows("train"), dataset.rows("test")
    parrot = audit(planted, _write(planted, dataset.cells[train], tmp_path / "parrot.parquet"))["figures"]
    stranger = audit(planted, _write(planted, dataset.cells[test], tmp_path / "stranger.parquet"))["figures"]
    assert parrot["copies"] == 1 and parrot["distance_attack_auc"] > 0.9 and parrot["closer_to_members"] > 0.85
    assert stranger["copies"] < 0.3 and stranger["distance_attack_auc"] < 0.1
    assert parrot["likelihood_attack_auc"] == stranger["likelihood_attack_auc"], "the model is the same"
    assert set(parrot) == set(FIGURES) and 0 <= parrot["exposure"] <= np.log2(2001)


def test_conditions_fail_the_command(planted, tmp_path):
    file = str(_write(planted, planted.dataset().cells[planted.dataset().rows("train")], tmp_path / "p.parquet"))
    fails = CliRunner().invoke(cli, ["audit", str(planted.path), file, "--fail-if", "copies>0.5"])
    assert fails.exit_code == 1 and "failed: copies>0.5" in fails.output and "copies of training sequences" in fails.output
    assert CliRunner().invoke(cli, ["audit", str(planted.path), file, "--fail-if", "copies < 0.5"]).exit_code == 0
    for condition, message in (("copies", "is no condition"), ("copy>1", "is none of")):
        with pytest.raises(BadInput, match=message):
            audit(planted, file, fail_if=[condition])


def test_people_who_are_alike_are_no_leak():
    """Members, outsiders and generated people of one make: nothing is beyond three standard deviations too often."""
    from mobtk.audit import _copies

    rng = np.random.default_rng(0)
    beyond = 0
    for _ in range(40):
        a, b, c = rng.integers(0, 3, (3, 100, 12)).astype(np.int32)
        found = _copies(a, b, b, c, rng)
        beyond += abs(found["closer_to_members"] - 0.5) > 3 * found["closer_to_members_error"]
    assert beyond <= 2


def test_canaries_are_planted_once(planted, tmp_path):
    with pytest.raises(BadInput, match="has canaries already"):
        plant(planted.dataset(), tmp_path / "again")
