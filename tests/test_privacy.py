"""Training with differential privacy: the bound, and what its steps do without noise."""

import numpy as np
import pytest
import torch

import mobtk
from mobtk import training
from mobtk.errors import BadInput, PartMismatch
from mobtk.privacy import PrivateSteps
from mobtk.recipe import Privacy

CHANGES = {"tokenizer": "cells", "training.generator.epochs": 3.0, "training.privacy.epsilon": 3.0}


def test_a_private_training_keeps_its_bound_and_says_it(city, tmp_path, caplog):
    run = mobtk.build("tiny", tmp_path / "r", data=city.path, changes=CHANGES)
    with caplog.at_level("INFO", "mobtk"):
        mobtk.train(run)
    told = [e["epsilon"] for e in run.history()]
    assert len(told) == 3 and 0 < told[0] < told[1] < told[2] <= 3.0
    assert "epsilon 3 at delta 1e-05 for each of" in caplog.text
    people = len(np.unique(city.users[city.rows("train")]))
    assert f"{people} people" in caplog.text


def test_two_private_trainings_differ_for_the_noise_is_secret(city, tmp_path):
    weights = []
    for name in "ab":
        run = mobtk.build("tiny", tmp_path / name, data=city.path, changes=CHANGES | {"training.generator.epochs": 0.2})
        weights.append(mobtk.train(run).model().state_dict())
    assert any(not torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_resumed_training_keeps_its_bound_or_says_that_there_is_none(city, tmp_path, monkeypatch):
    run = mobtk.build("tiny", tmp_path / "r", data=city.path, changes=CHANGES)
    taken, kept = 0, PrivateSteps.step

    def stop_at_five(self, *args):
        nonlocal taken
        taken += 1
        if taken == 5:
            raise KeyboardInterrupt
        return kept(self, *args)

    monkeypatch.setattr(training, "SAVE_SECONDS", -1)
    monkeypatch.setattr(PrivateSteps, "step", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        mobtk.train(run)
    monkeypatch.setattr(PrivateSteps, "step", kept)
    recipe = run.path / "recipe.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace("epsilon = 3.0", "epsilon = 1.0"))
    with pytest.raises(BadInput, match="no bound would hold"):
        mobtk.train(mobtk.Run(run.path), resume=True)
    recipe.write_text(text)
    mobtk.train(mobtk.Run(run.path), resume=True)
    assert run.history()[-1]["epsilon"] <= 3.0


def test_a_delta_that_gives_somebody_away_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=1.0)
    with pytest.raises(BadInput, match="one of 1000 people"):
        PrivateSteps(optimizer, np.arange(1000), 10, 500, Privacy(epsilon=8, delta=1e-2))


def test_a_tokenizer_that_learns_is_refused(city, tmp_path):
    with pytest.raises(PartMismatch, match=r"learns from the sequences.*Try: .*cells"):
        mobtk.build("tiny", tmp_path / "r", data=city.path, changes={"training.privacy.epsilon": 3.0})


def test_without_opacus_it_says_how_to_install_it(city, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opacus.optimizers", None)
    run = mobtk.build("tiny", tmp_path / "r", data=city.path, changes=CHANGES)
    with pytest.raises(BadInput, match=r"mobtk\[privacy\]"):
        mobtk.train(run)


def test_a_person_moves_the_weights_by_no_more_than_the_clip():
    """Four people, one with a huge gradient from two sequences; no noise to speak of, everybody takes part."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    people = np.array(["a", "a", "b", "c", "d"])
    steps = PrivateSteps(optimizer, people, batch=5, steps=1, privacy=Privacy(epsilon=1e6, clip=0.5))
    assert steps.share == 1
    steps.optimizer.noise_multiplier = 0.0
    pull = torch.tensor([[1000.0, 0, 0], [1000, 0, 0], [0, 0.1, 0], [0, 0, 0.2], [0, 0, 0]])
    seen = []

    def losses(rows):
        seen.append(rows.tolist())
        return {"tokens": (weight * pull[rows]).sum()}

    steps.step(np.arange(5), losses)
    assert seen == [[0, 1], [2], [3], [4]], "all sequences of a person are one gradient"
    assert weight.detach().tolist() == pytest.approx([-0.5 / 4, -0.1 / 4, -0.2 / 4], rel=1e-4)


def test_more_noise_for_a_tighter_bound():
    def noise(epsilon):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=1.0)
        return PrivateSteps(optimizer, np.arange(1000), 10, 500, Privacy(epsilon=epsilon)).noise

    assert noise(0.5) > noise(2) > noise(8)
