"""The completer: two schedules, one set of weights; what it may not see, what must not matter."""

import dataclasses
import logging
import os
import signal

import numpy as np
import pyarrow as pa
import pytest
import torch

import mobtk
from mobtk import training
from mobtk.completing import Teller, _around_gaps, table
from mobtk.contracts import Paths
from mobtk.data.trajectories import Trajectories, TrajectoriesInfo, Trajectory
from mobtk.data.walks import make_walks
from mobtk.errors import BadInput, PartMismatch
from mobtk.geo import from_local
from mobtk.models.assemble import assemble_completer, build_part
from mobtk.models.paths import collate, hide, local, nothing_hidden, turned, uncollate, windows
from mobtk.recipe import COMPLETER, Part, Recipe
from mobtk.testing.fixtures import walks

SMALL = COMPLETER.change("width", 32)


def _model(**options):
    recipe = SMALL
    for key, value in options.items():
        recipe = recipe.change(key.replace("__", "."), value)
    model = assemble_completer(recipe)
    model.tokenizer.fit(walks())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model.eval()


def _paths(n=24, **kinds):
    paths = walks(points=n)
    return dataclasses.replace(paths, lengths=torch.full_like(paths.lengths, n), **kinds)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    return make_walks(tmp_path_factory.mktemp("walks") / "walks", n=300)


@pytest.fixture(scope="module")
def learned(walked, tmp_path_factory):
    run = mobtk.build("completer", tmp_path_factory.mktemp("c") / "run", data=walked.path,
                      changes={"width": 32, "training.completer.epochs": 4, "complete.window": 48})  # fmt: skip
    return mobtk.train(run)


BACKBONES = ("transformer", "gpt2", "mamba")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("patch", [1, 4])
def test_step_by_step_is_what_whole_passes_say(backbone, patch):
    """With a cache as without: each step equals that of a full pass over all points so far."""
    model = _model(backbone=backbone, tokenizer__patch=patch)
    paths = _paths()
    none = torch.zeros_like(paths.hidden_time)
    paths = dataclasses.replace(paths, hidden_place=none, hidden_time=none)
    place, time = model.step_by_step(paths, 12)
    assert torch.equal(place[:, :12], paths.place[:, :12])
    assert torch.equal(time, paths.time)
    whole = paths.place.clone()
    for first in range(12, 24, patch):
        told, _ = model.next_points(dataclasses.replace(paths, place=whole))
        whole[:, first : first + patch] = told[:, first : first + patch]
    assert (place - whole).abs().max() < 1e-2  # metres


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_future_changes_nothing_step_by_step(backbone):
    model = _model(backbone=backbone)
    paths = _paths()
    before, _ = model.losses(paths, onward=True)
    other = paths.place.clone()
    other[:, -1] += 1000
    after, _ = model.losses(dataclasses.replace(paths, place=other), onward=True)
    assert torch.allclose(before[:, :-1], after[:, :-1], atol=1e-4)
    assert not torch.allclose(before[:, -1], after[:, -1])


@pytest.mark.parametrize("onward", [True, False])
def test_padding_and_company_change_nothing(onward):
    model = _model()
    paths = walks()
    together = model.losses(paths, onward)
    for i, n in enumerate(paths.lengths.tolist()):
        parts = {f.name: getattr(paths, f.name)[i : i + 1] for f in dataclasses.fields(Paths)}
        one = Paths(**{k: v[:, :n] if v.ndim > 1 else v for k, v in parts.items()})
        for whole, alone in zip(together, model.losses(one, onward), strict=True):
            assert torch.allclose(whole[i, :n], alone[0], atol=1e-4)


@pytest.mark.parametrize("way", ["at once", "step by step"])
def test_the_same_walk_elsewhere_is_told_alike(learned, walked, way):
    """Moved by 58 km and more, errors stay what they were: the ratio is 1.00."""
    teller = Teller(learned, "UTC", torch.device("cpu"))
    mask = build_part("mask", Part("last", {"points": 4}))
    pairs = [(walked[i], hide(walked[i], mask, np.random.default_rng(0))) for i in range(20)]
    moved = []
    for t, hidden in pairs:
        lat, lon = from_local(local(t)[1], (float(t.lat[0]) - 40.5, float(t.lon[0]) + 90))
        moved.append((Trajectory(t.user, t.time, lat, lon), hidden))

    def error(pairs):
        told = teller.tell(pairs, way)
        off = [np.linalg.norm(local(a)[1] - local(b)[1], axis=-1) for a, (b, _) in zip(told, pairs, strict=True)]
        return float(np.mean(np.concatenate(off)))

    here, there = error(pairs), error(moved)
    assert here > 0
    assert there / here == pytest.approx(1, abs=1e-6)


def test_it_learns_to_repeat_one_walk(tmp_path):
    """Overfit: each next point of one trajectory, known by heart, is told to within a metre."""
    one = make_walks(tmp_path / "one", n=10)[3]
    recipe = SMALL.change("complete.turned", False)
    model = assemble_completer(recipe)
    paths = collate([one], [nothing_hidden(len(one))], "UTC")
    model.tokenizer.fit(paths)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(500):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 500)
        optimizer.zero_grad()
        model.loss(paths, onward=True)["place"].backward()
        optimizer.step()
    told, _ = model.eval().next_points(paths)
    assert float((told - paths.place)[:, 1:].norm(dim=-1).mean()) < 1.0


def test_batches_come_and_go(walked):
    pairs = [(walked[i], hide(walked[i], build_part("mask", Part("origin-destination")), np.random.default_rng(0)))
             for i in range(5)]  # fmt: skip
    trajectories, hidden = [t for t, _ in pairs], [h for _, h in pairs]
    paths = collate(trajectories, hidden, "Europe/Copenhagen", multiple=4)
    assert paths.time.shape == (5, 4)
    assert paths.lengths.tolist() == [2] * 5
    assert 36_000 <= float(paths.start[0]) <= 43_200  # Monday, 11 o'clock in Copenhagen or so
    for t, h, back in zip(trajectories, hidden, uncollate(paths.place, paths.time, trajectories, hidden), strict=True):
        there = ~h.absent
        assert np.allclose(back.lat[there], t.lat[there], atol=1e-9)
        assert np.array_equal(back.time[there], t.time[there])
        assert np.isnan(back.lat[~there]).all()


def test_turning_keeps_lengths_and_angles():
    paths = walks()
    other = turned(paths, np.random.default_rng(0))
    assert torch.allclose(paths.place.norm(dim=-1), other.place.norm(dim=-1))
    assert not torch.allclose(paths.place, other.place)
    assert torch.equal(paths.time, other.time)


def test_windows_are_all_of_it_but_a_small_rest():
    t = Trajectory("a", np.arange(25), np.zeros(25), np.zeros(25))
    assert [len(w) for w in windows(t, 10)] == [10, 10, 5]
    assert [len(w) for w in windows(t[:23], 10)] == [10, 10]
    assert [len(w) for w in windows(t[:3], 10)] == [3]


def test_scores_stand_beside_baselines(learned):
    result = mobtk.evaluate_completer(learned, options={"last": {"points": 3}})
    assert set(result["scores"]["last"]) == {
        "model step by step", "model at once", "stay put", "constant velocity", "markov", "interpolation"
    }  # fmt: skip
    assert len(result["by_step"]["last"]["stay put"]) == 3
    assert result["scores"]["last"]["model step by step"]["ade"] < result["scores"]["last"]["stay put"]["ade"]
    assert "model step by step" not in result["scores"]["block"]
    assert set(result["scores"]["travel-time"]["model at once"]) == {"time_mae", "time_rmse", "time_mape"}
    assert (learned.path / "results" / "complete.json").is_file()
    assert "skill" in table(result)


def test_a_model_that_only_goes_on_is_not_asked_else(walked, tmp_path):
    run = mobtk.build("completer", tmp_path / "run", data=walked.path, changes={"width": 16, "complete.onward": 1.0})
    result = mobtk.evaluate_completer(run, masks=["last", "block"], n=20)
    assert not any(s.startswith("model") for s in result["scores"]["block"])
    assert "did not learn to tell this" in table(result)
    with pytest.raises(BadInput, match="tells points step by step only"):
        mobtk.complete(run, walked.path, every=5)


def test_the_next_points(learned, walked):
    told = mobtk.predict(learned, walked.path, n=5, every=10, split="test", samples=8)
    rows = walked.rows("test")
    assert len(told) == 5 * len(rows)
    one = told[told["trajectory"] == rows[0]]
    assert one["step"].tolist() == [1, 2, 3, 4, 5]
    last = np.datetime64(int(walked[int(rows[0])].time[-1]), "us")
    assert one["time"].dt.tz_localize(None).to_numpy()[0] == last + np.timedelta64(10, "s")
    assert (told["metres_80"] > 0).all()
    timed = mobtk.predict(learned, walked.path, n=5, split="test", samples=0)
    steps = timed.groupby("trajectory")["time"].diff().dt.total_seconds().dropna()
    assert 10 < steps.mean() < 60
    assert timed["metres_80"].isna().all()
    again = mobtk.predict(learned, walked.path, n=5, every=10, split="test", samples=8)
    assert told.equals(again)


def test_gaps_are_filled(learned, walked):
    filled = mobtk.complete(learned, walked.path, every=20, split="test", samples=4)
    rows = walked.rows("test")
    for row in rows[:10]:
        t, told = walked[int(row)], filled[filled["trajectory"] == row]
        gaps = np.maximum(np.round(np.diff(t.time) / 2e7) - 1, 0) * (np.diff(t.time) > 3e7)
        assert told["filled"].sum() == gaps.sum()
        given = told[~told["filled"]]
        assert np.allclose(given["lat"], t.lat)
        assert told["time"].is_monotonic_increasing
        assert told.loc[told["filled"], "metres_80"].gt(0).all()
        assert given["metres_80"].isna().all()


def test_a_gap_longer_than_the_model_reads_is_left(learned, tmp_path, caplog):
    table_ = {"user": ["a"] * 3, "split": ["train", "valid", "test"]}
    times = np.array([0, 10, 20, 2000, 2010, 2020]) * 1_000_000
    table_ |= {"time": [times] * 3, "lat": [np.linspace(0, 0.01, 6)] * 3, "lon": [np.zeros(6)] * 3}
    made = Trajectories.write(tmp_path / "t", TrajectoriesInfo("t"), [pa.table(table_)])
    with caplog.at_level("WARNING", logger="mobtk"):
        filled = mobtk.complete(learned, made.path, every=10, samples=0)
    assert not filled["filled"].any()
    assert len(filled) == 18
    assert "591 points were not put in" in caplog.text


def test_training_goes_on_exactly_where_it_was(walked, tmp_path, monkeypatch):
    """Stopped in the middle of a pass, and in that of the next one: the same weights."""
    changes = {"width": 16, "training.completer.epochs": 2}
    whole = mobtk.train(mobtk.build("completer", tmp_path / "a", data=walked.path, changes=changes))
    run = mobtk.build("completer", tmp_path / "b", data=walked.path, changes=changes)
    step, stopped = training._Trainer.step, 0

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(training._Trainer, "step", interrupted)
    while not stopped or stopped < 20:
        try:
            mobtk.train(run, resume=stopped > 0)
            break
        except training.Stopped:
            stopped += 1
    assert stopped > 3
    a, b = whole.completer().state_dict(), run.completer().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_fine_tuning_begins_where_another_run_ended(learned, walked, tmp_path):
    changes = {"width": 32, "training.completer.epochs": 1, "complete.window": 48}
    run = mobtk.build("completer", tmp_path / "run", data=walked.path, changes=changes)
    tuned = mobtk.train(run, start=learned, freeze=["backbone"])
    before, after = learned.completer().state_dict(), tuned.completer().state_dict()
    for key in before:
        if key.startswith("backbone.") or key == "tokenizer.usual":
            assert torch.equal(before[key], after[key]), key
    assert not torch.equal(before["tokenizer.embed.weight"], after["tokenizer.embed.weight"])
    with pytest.raises(BadInput, match="goes on as it was begun"):
        mobtk.train(run, resume=True, start=learned)


@pytest.mark.parametrize(
    ("start", "freeze", "words"),
    [
        (None, ["wheels"], "has nothing called 'wheels' to freeze; it has backbone, tokenizer"),
        (None, ["backbone", "tokenizer"], "nothing of run .* would learn"),
    ],
)
def test_what_cannot_be_frozen_is_refused(learned, walked, tmp_path, start, freeze, words):
    run = mobtk.build("completer", tmp_path / "run", data=walked.path, changes={"width": 16})
    with pytest.raises(BadInput, match=words):
        mobtk.train(run, start=start, freeze=freeze)


def test_parts_that_do_not_fit_are_refused(city, walked, tmp_path):
    with pytest.raises(PartMismatch, match="wants masks that hide something"):
        mobtk.build(COMPLETER.change("complete.masks", []), tmp_path / "run", data=walked.path)
    with pytest.raises(PartMismatch, match=r"'cells' does not read points, which are completed\. Try: points"):
        mobtk.build("completer", tmp_path / "run", data=walked.path, changes={"tokenizer": "cells"})
    with pytest.raises(PartMismatch, match=r"'points' does not read sequences of places.*Try: cells"):
        mobtk.build("tiny", tmp_path / "run", data=city.path, changes={"tokenizer": "points"})
    with pytest.raises(BadInput, match="wants trajectories: see mobtk data trajectories"):
        mobtk.build("completer", tmp_path / "run", data=city.path)
    with pytest.raises(PartMismatch, match=r"reads at most 20 tokens.*--set backbone.longest=128"):
        mobtk.build("completer", tmp_path / "run", data=walked.path,
                    changes={"backbone": "gpt2", "backbone.longest": 20})  # fmt: skip
    with pytest.raises(BadInput, match="setting 'experts' is not of the task of this recipe, which is to complete"):
        COMPLETER.change("experts", 2)
    assert Recipe.loads(COMPLETER.dumps()) == COMPLETER


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rotary", "rotary-time", "rotary-place"])
@pytest.mark.parametrize("head", ["regression", "mixture", "cells"])
@pytest.mark.parametrize("target", ["delta", "velocity", "absolute"])
def test_every_choice_learns(positions, head, target):
    model = _model(backbone__positions=positions, tokenizer__head=head, tokenizer__target=target)
    paths = walks()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for onward in (True, False):
        before = sum(model.loss(paths, onward).values())
        optimizer.zero_grad()
        before.backward()
        optimizer.step()
        assert sum(model.loss(paths, onward).values()) < before


def _made(folder, times, lat=None, splits=("train", "valid", "test")):
    """Trajectories of these seconds, going north."""
    times = [np.asarray(t) * 1_000_000 for t in times]
    lat = lat or [np.linspace(0, 0.001 * len(t), len(t)) for t in times]
    table_ = {"user": [f"u{i}" for i in range(len(times))], "split": list(splits), "time": times, "lat": lat,
              "lon": [np.zeros(len(t)) for t in times]}  # fmt: skip
    return Trajectories.write(folder, TrajectoriesInfo("made"), [pa.table(table_)])


def test_short_pieces_take_nothing_from_the_others(learned, tmp_path, caplog):
    """One trajectory too short for what is asked is left out, for the model and the baselines alike, and told."""
    data = _made(tmp_path / "d", [range(40), range(40), range(40), range(5)], splits=("train", "valid", "test", "test"))
    result = mobtk.evaluate_completer(learned, data=data.path, masks=["last"], options={"last": {"points": 8}})
    assert result["n"]["last"] == 1 and result["left_out"]["last"] == 1
    assert "model step by step" in result["scores"]["last"]
    assert len(result["by_step"]["last"]["stay put"]) == 8
    assert "1 pieces are too short" in table(result)
    tiny = _made(tmp_path / "t", [[0, 1]] * 3)
    with caplog.at_level("WARNING", logger="mobtk"):
        result = mobtk.evaluate_completer(learned, data=tiny.path)
    assert "mask origin-destination is left out" in caplog.text
    assert set(result["scores"]) == {"travel-time", "last", "random", "keep-every"} & set(result["scores"])


def test_results_of_other_data_have_a_file_of_their_own(learned, walked, tmp_path):
    own = learned.path / "results" / "complete.json"
    mobtk.evaluate_completer(learned, n=10)
    before = own.read_bytes()
    other = make_walks(tmp_path / "other", n=20, seed=5)
    mobtk.evaluate_completer(learned, data=other.path, n=10)
    mobtk.evaluate_completer(learned, masks=["block"], n=10)
    assert own.read_bytes() == before
    names = {f.name for f in own.parent.iterdir()}
    assert {"complete-20-made-up-walks.json", "complete-block.json"} <= names


def test_baselines_learn_from_pieces_as_they_are_scored(learned, tmp_path):
    """A long trajectory that turns round: its ends are near, those of its pieces are not."""
    lap = np.concatenate([np.linspace(0, 0.1, 48), np.linspace(0.1, 0, 48)])
    data = _made(tmp_path / "laps", [np.arange(96) * 10] * 3, lat=[lap] * 3)
    found = mobtk.evaluate_completer(learned, data=data.path, masks=["origin-destination"], window=48)["scores"]
    assert found["origin-destination"]["constant pace"]["time_mae"] < 30


def test_a_gap_is_filled_from_both_sides():
    gaps = np.zeros(60, bool)
    gaps[26:36] = True
    ((c, d, a, b),) = _around_gaps(gaps, 32)
    assert (c, d) == (26, 36)
    assert c - a >= 8 and b - d >= 8 and b - a <= 32
    gaps[40] = gaps[1:3] = gaps[15] = True
    for c, d, a, b in _around_gaps(gaps, 32):
        assert not gaps[a] and a < c and d < b and b - a <= 32
        assert gaps[c] and gaps[d - 1]


def test_nothing_to_fill_is_what_it_was(learned, tmp_path):
    data = _made(tmp_path / "d", [range(20)] * 3)
    filled = mobtk.complete(learned, data.path, every=1)
    assert len(filled) == 60 and not filled["filled"].any()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run, data: mobtk.complete(run, data, every=5, split="test"), "split 'test' of .* has no trajectories"),
        (lambda run, data: mobtk.evaluate_completer(run, data=data), "split 'test' of .* has no trajectories"),
        (lambda run, data: mobtk.predict(run, data, split="test"), "no trajectories of 1 points or more"),
        (lambda run, data: mobtk.predict(run, data, samples=-1), "samples are 0 or more, not -1"),
        (lambda run, data: mobtk.complete(run, data, every=5, samples=-1), "samples are 0 or more, not -1"),
        (lambda run, data: mobtk.evaluate_completer(run, window=-5), "not a window of -5"),
        (lambda run, data: mobtk.evaluate_completer(run, n=-3), "n=-3"),
    ],
)
def test_questions_that_make_no_sense(learned, tmp_path, ask, words):
    data = _made(tmp_path / "d", [range(20)] * 3, splits=("train", "train", "valid"))
    with pytest.raises(BadInput, match=words):
        ask(learned, data.path)


def test_patches_longer_than_what_is_read_are_refused(walked, tmp_path):
    with pytest.raises(PartMismatch, match=r"patches of 16 points want a window of two.*complete.window=64"):
        mobtk.build("completer", tmp_path / "r", data=walked.path, changes={"tokenizer.patch": 16, "complete.window": 8})


def test_a_frozen_codec_stays_as_it_is(trained, city, tmp_path):
    run = mobtk.build("tiny", tmp_path / "run", data=city.path)
    mobtk.train(run, start=trained, freeze=["tokenizer"])
    before, after = trained.model().state_dict(), run.model().state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("tokenizer."))
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("backbone."))
    assert {entry["stage"] for entry in run.history()} == {"generator"}


def test_weights_that_do_not_fit_are_not_begun_with(learned, walked, tmp_path, caplog):
    changes = {"width": 16, "backbone": "gpt2"}
    with pytest.raises(BadInput, match="has no weights of the shapes"):
        mobtk.train(mobtk.build("completer", tmp_path / "a", data=walked.path, changes=changes), start=learned)
    changes = {"width": 32, "backbone": "gpt2", "training.completer.epochs": 1}
    run = mobtk.build("completer", tmp_path / "b", data=walked.path, changes=changes)
    with pytest.raises(BadInput, match=r"has no weights for backbone\..*which would begin anew and be frozen"):
        mobtk.train(run, start=learned, freeze=["backbone"])
    with caplog.at_level(logging.INFO, logger="mobtk"):
        mobtk.train(run, start=learned)
    assert "begins anew: backbone." in caplog.text


def test_all_places_may_be_asked_for(learned):
    """Of trajectories of any length, from their moments alone."""
    result = mobtk.evaluate_completer(learned, masks=["modality"], options={"modality": {"what": "place"}})
    assert result["left_out"]["modality"] == 0
    assert result["scores"]["modality"]["model at once"]["ade"] > 0
