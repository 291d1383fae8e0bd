import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import mobtk
from mobtk import generation
from mobtk.errors import BadInput
from mobtk.generation import read_generated


def _cells(file, run):
    return read_generated(file, run.dataset())


def test_the_same_seed_gives_the_same_people_and_another_others(trained, tmp_path):
    a, b, c = (mobtk.generate(trained, 50, tmp_path / n, seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert (_cells(a, trained) == _cells(b, trained)).all()
    assert (_cells(a, trained) != _cells(c, trained)).any()
    table = pq.read_table(a)
    assert table.column_names == ["id", "home", "work", "cluster", "cells"]
    assert table["id"].to_pylist() == list(range(50))


def test_traits_are_whole_rows_of_the_training_people(trained, tmp_path):
    table = pq.read_table(mobtk.generate(trained, 300, tmp_path / "g")).to_pandas()
    dataset = trained.dataset()
    known = {tuple(r) for r in dataset.traits(["home", "work", "cluster"])[dataset.rows("train")]}
    drawn = {tuple(r) for r in table[["home", "work", "cluster"]].to_numpy()}
    assert drawn <= known
    assert len(drawn) > len(known) / 2


def test_traits_from_a_file_are_used_in_turn(trained, tmp_path):
    wanted = pd.DataFrame({"home": [5, 6, 7], "work": [5, -1, 9], "cluster": [0, 1, 2], "name": ["a", "b", "c"]})
    for kind in ("csv", "parquet"):
        file = tmp_path / f"traits.{kind}"
        wanted.to_csv(file, index=False) if kind == "csv" else wanted.to_parquet(file)
        table = pq.read_table(mobtk.generate(trained, out=tmp_path / kind, traits=file)).to_pandas()
        assert (table[["home", "work", "cluster"]] == wanted[["home", "work", "cluster"]]).all(axis=None)
    longer = pq.read_table(mobtk.generate(trained, 7, tmp_path / "7", traits=file)).to_pandas()
    assert longer["home"].tolist() == [5, 6, 7, 5, 6, 7, 5]


def test_cut_off_it_resumes_to_the_same_file(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SHARD", 16)
    whole = mobtk.generate(trained, 60, tmp_path / "whole")
    draw, calls = generation._draw, []

    def cut(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(generation, "_draw", cut)
    with pytest.raises(KeyboardInterrupt):
        mobtk.generate(trained, 60, tmp_path / "cut")
    assert not (tmp_path / "cut").exists(), "nothing half-written under the name"
    file = mobtk.generate(trained, 60, tmp_path / "cut", resume=True)
    assert len(calls) == 3 + 2, "two shards were there already"
    assert pq.read_table(file).equals(pq.read_table(whole))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "whole"]


def test_shards_of_other_settings_are_not_mixed_in(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "_join", lambda parts, out: None)
    mobtk.generate(trained, 20, tmp_path / "g")
    with pytest.raises(BadInput, match="shards of another generation"):
        mobtk.generate(trained, 20, tmp_path / "g", temperature=0.5, resume=True)


def test_temperature_zero_knows_no_chance(trained, tmp_path):
    traits = tmp_path / "t.csv"
    pd.DataFrame({"home": [5] * 4, "work": [9] * 4, "cluster": [1] * 4}).to_csv(traits, index=False)
    cells = _cells(mobtk.generate(trained, out=tmp_path / "g", traits=traits, temperature=0), trained)
    assert (cells == cells[0]).all()
    free = _cells(mobtk.generate(trained, out=tmp_path / "h", traits=traits), trained)
    assert (free != free[0]).any()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"n": 0}, "at least 1"),
        ({"temperature": -1.0}, "temperature is 0 or above"),
        ({"temperature": float("nan")}, "temperature is 0 or above"),
        ({"top_k": 0}, "top-k is at least 1"),
        ({"top_p": 1.5}, "top-p lies above 0"),
        ({"min_p": 0.0}, "min-p lies above 0"),
        ({"coupling": -1}, "coupling is a number of steps"),
        ({"traits": "nowhere.csv"}, r"nowhere\.csv is not a file"),
    ],
)
def test_bad_options_are_one_sentence(trained, tmp_path, options, complaint):
    with pytest.raises(BadInput, match=complaint):
        mobtk.generate(trained, **({"n": 5} | options), out=tmp_path / "g")
    assert list(tmp_path.iterdir()) == []


def test_bad_trait_files_are_one_sentence(trained, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("home,work\n1,2\n")
    with pytest.raises(BadInput, match="it lacks cluster"):
        mobtk.generate(trained, out=tmp_path / "g", traits=file)
    file.write_text("home,work,cluster\n1,2,900\n")
    with pytest.raises(BadInput, match="cluster must be whole numbers from 0 to 7"):
        mobtk.generate(trained, out=tmp_path / "g", traits=file)


def test_cells_of_another_mapper_are_not_compared(trained, tmp_path):
    other = mobtk.prepare_city(tmp_path / "h3", weeks=12, mapper="h3")
    file = mobtk.generate(trained, 5, tmp_path / "g")
    with pytest.raises(BadInput, match="generated with another mapper"):
        read_generated(file, other)
    with pytest.raises(BadInput, match=r"was made with mapper mobtk\.h3.* the model of run .* with mobtk\.grid"):
        trained.dataset(other.path)


def test_coupled_draws_agree_more(trained, tmp_path):
    """With a day's coupling people move less than with independent draws: neighbours in time agree."""

    def moves(coupling):
        file = mobtk.generate(trained, 200, tmp_path / f"c{coupling}", coupling=coupling)
        return (np.diff(_cells(file, trained), axis=1) != 0).mean()

    assert moves(24) < moves(0)
