"""TrajGPT: the order in which a visit is told, and the leak of the published code."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from mobtk_trajfm.experiments import SIZES, Leaking, sized
from mobtk_trajfm.recipes import MASKED, TRAJFM, TRAJGPT
from mobtk_trajfm.visits import Visits, made_up_visits, visit_trajectories

import mobtk
from mobtk.errors import BadInput
from mobtk.models.assemble import assemble_completer
from mobtk.testing.fixtures import walks
from mobtk.testing.laws import points as laws


class _Leaky(Leaking):
    def __init__(self, width):
        super().__init__(Visits(width), width)


def test_a_leak_is_caught():
    """The law that no token looks ahead holds here and fails where the answer is read, as in the published code."""
    laws.points_do_not_see_ahead(Visits)
    with pytest.raises(AssertionError, match="looks ahead"):
        laws.points_do_not_see_ahead(_Leaky)


def test_times_know_the_region_and_not_the_answer():
    model = assemble_completer(TRAJGPT.change("width", 32)).eval()
    paths = walks()
    everything = torch.ones_like(paths.hidden_time)
    everything[:, 0] = False
    paths = dataclasses.replace(paths, hidden_time=everything, place=paths.place * 100)
    model.tokenizer.fit(paths)

    def mixture(paths):
        tokens = model.tokens(paths, onward=True)
        hidden = model._mixed(tokens, onward=True)
        place = ((paths.place - tokens.place) / tokens.metres[..., None]).float()
        return torch.cat(model.tokenizer.time_head.mixture(model.tokenizer.knowing(hidden, place))[1:], -1)[:, 7]

    before = mixture(paths)
    time, place = paths.time.clone(), paths.place.clone()
    time[:, 7] += 1000
    assert torch.equal(before, mixture(dataclasses.replace(paths, time=time)))
    place[:, 7] += 20_000
    assert not torch.equal(before, mixture(dataclasses.replace(paths, place=place)))


def test_visits_become_two_points_each(tmp_path):
    table = made_up_visits(12, visits=10)
    made = visit_trajectories(table, tmp_path / "visits", most=6)
    first = made[0]
    assert len(first) in (8, 12)
    assert (first.lat[::2] == first.lat[1::2]).all()
    stays = (first.time[1::2] - first.time[::2]) / 3.6e9
    one = table[table["user"] == first.user]
    hours = ((one["end"] - one["time"]).dt.total_seconds() / 3600).to_numpy()
    assert any(np.allclose(stays, hours[i : i + len(stays)], atol=1e-6) for i in (0, 6))
    with pytest.raises(BadInput, match="visits have a column 'end'"):
        visit_trajectories(table.drop(columns="end"), tmp_path / "other")
    with pytest.raises(BadInput, match="needs three users"):
        visit_trajectories(table[table["user"] == "u00000"], tmp_path / "other")
    assert isinstance(table, pd.DataFrame)


def test_regions_follow_one_another_as_they_do(tmp_path):
    """Eight places with chances of their own: told better than by how often they are visited."""
    data = visit_trajectories(made_up_visits(120, visits=24), tmp_path / "visits")
    changes = {"width": 32, "backbone.depth": 1, "training.completer.epochs": 25, "training.completer.batch": 16,
               "complete.window": 48, "tokenizer.regions": 20, "training.completer.lr": 3e-3}  # fmt: skip
    run = mobtk.train(mobtk.build("trajgpt", tmp_path / "run", data=data.path, changes=changes))
    assert run.completer().tokenizer.head.used.sum() <= 8
    told = mobtk.predict(run, data.path, n=4, split="test", samples=0)
    assert (told.groupby("trajectory")["time"].diff().dropna() > pd.Timedelta(0)).mean() > 0.9
    arrivals = told[told["step"].isin([1, 3])].merge(
        told[told["step"].isin([2, 4])].assign(step=lambda t: t["step"] - 1), on=["trajectory", "step"]
    )
    assert np.allclose(arrivals["lat_x"], arrivals["lat_y"])  # one departs from where one arrived
    nats = min(e["valid_loss"] for e in run.history())
    assert nats < run.history()[0]["valid_loss"] - 0.5


@pytest.mark.parametrize(("recipe", "least"), [(TRAJFM, 220_000), (MASKED, 220_000), (TRAJGPT, 800_000)])
def test_sizes_are_about_the_papers(recipe, least):
    size = sum(p.numel() for p in assemble_completer(recipe).parameters())
    assert least < size < 1.3 * least + 200_000


def test_visits_stay_whole(tmp_path):
    """Pieces begin with an arrival, however many points are asked for; a departure is told where one has arrived."""
    data = visit_trajectories(made_up_visits(60, visits=24), tmp_path / "visits")
    changes = {"width": 16, "backbone.depth": 1, "training.completer.epochs": 1, "complete.window": 24}
    run = mobtk.train(mobtk.build("trajgpt", tmp_path / "run", data=data.path, changes=changes))
    seen = []
    told = Visits._with_regions

    def watch(self, tokens, paths, last, index):
        seen.append(paths)
        return told(self, tokens, paths, last, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Visits, "_with_regions", watch)
        mobtk.predict(run, data.path, n=5, split="test", samples=0)
        mobtk.evaluate_completer(run, masks=["last"], window=15, n=10)
    assert len(seen) > 2
    for paths in seen:  # both points of a visit are at one place, as far as they are known
        assert torch.equal(paths.place[:, 0], paths.place[:, 1])


@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_of_an_experiment_can_be_built(size):
    for recipe in (TRAJFM, MASKED):
        assemble_completer(sized(recipe, SIZES[size]))
