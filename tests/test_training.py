"""Training: exact resume after any interruption, processes, accumulation."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import mobtk
from mobtk import training
from mobtk.errors import BadInput
from mobtk.runs import load_weights
from mobtk.training import Stopped


def _losses(run):
    return [(e["stage"], e["epoch"], e["loss"]) for e in mobtk.Run(run.path).history()]


def _build(city, path, **changes):
    return mobtk.build("tiny", path, data=city.path, changes=changes)


def test_both_stages_learn_and_the_best_weights_are_kept(trained):
    history = trained.history()
    assert [e["stage"] for e in history] == ["tokenizer", "tokenizer", "generator", "generator"]
    for stage, figure in (("tokenizer", "cells"), ("generator", "loss")):
        first, last = (e[figure] for e in history if e["stage"] == stage)
        assert last < first
    model = trained.model()
    dataset = trained.dataset()
    rows = dataset.rows("valid")
    tokens = model.tokenizer.encode(torch.from_numpy(dataset.cells[rows].copy()))
    with torch.inference_mode():
        loss = model.loss(tokens, torch.from_numpy(dataset.traits(trained.recipe.traits)[rows]))["tokens"].item()
    assert loss == pytest.approx(min(e["valid_loss"] for e in history if e["stage"] == "generator"), abs=1e-4)


def test_the_codec_does_not_move_while_the_generator_trains(trained, city, tmp_path):
    only_codec = mobtk.train(_build(city, tmp_path / "r", **{"training.generator.lr": 1e-12}))
    a, b = trained.model().tokenizer.codec.state_dict(), only_codec.model().tokenizer.codec.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_killed_at_any_moment_it_resumes_to_the_same_losses(trained, city, tmp_path, monkeypatch):
    """Saved after every step and killed (as good as) there: whatever step that is, nothing changes."""
    run = _build(city, tmp_path / "r")
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)

    class Killed(BaseException):
        pass

    steps, kept = 0, training._Trainer.save_state

    def save_and_die(self, *args):
        nonlocal steps
        kept(self, *args)
        steps += 1
        if steps % 3 == 0:
            raise Killed

    monkeypatch.setattr(training._Trainer, "save_state", save_and_die)
    for _ in range(30):
        try:
            mobtk.train(run, resume=True)
            break
        except Killed:
            continue
    else:
        pytest.fail("it never came to an end")
    assert steps > 6
    assert _losses(run) == _losses(trained)
    a, b = run.model().state_dict(), trained.model().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_real_process_killed_or_interrupted_resumes_to_the_same_losses(city, tmp_path, number):
    changes = {"training.tokenizer.epochs": 4, "training.generator.epochs": 6}
    whole = mobtk.train(_build(city, tmp_path / "whole", **changes))
    cut = _build(city, tmp_path / "cut", **changes)
    command = [sys.executable, "-m", "mobtk", "train", str(cut.path)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    state = cut.path / "state" / "state.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or "--resume" in told
    subprocess.run([*command, "--resume"], check=True, capture_output=True, env=env)
    assert _losses(cut) == _losses(whole)


def test_stopping_early_by_signal_saves_and_raises(city, tmp_path, monkeypatch):
    run = _build(city, tmp_path / "r")
    step = training._Trainer.step

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(training._Trainer, "step", interrupted)
    with pytest.raises(Stopped, match="stopped in epoch 1 of stage tokenizer"):
        mobtk.train(run)
    assert (run.path / "state" / "state.safetensors").exists()


def test_without_a_terminal_a_long_epoch_says_how_far_it_is(city, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "TELL_SECONDS", -1)
    with caplog.at_level("INFO", "mobtk"):
        mobtk.train(_build(city, tmp_path / "r"), until="tokenizer")
    assert "tokenizer 1/2: batch 1 of 2, loss" in caplog.text


def test_a_stage_at_a_time_gives_what_both_in_one_go_give(trained, city, tmp_path):
    run = mobtk.train(_build(city, tmp_path / "r"), until="tokenizer")
    assert {e["stage"] for e in run.history()} == {"tokenizer"}
    assert _losses(mobtk.train(run, resume=True)) == _losses(trained)
    with pytest.raises(BadInput, match="has no stage 'decoder'; it has tokenizer and generator"):
        mobtk.train(run, restart=True, until="decoder")


def test_a_trained_run_is_not_trained_over_by_accident(trained):
    with pytest.raises(BadInput, match="--resume, or begin anew with --restart"):
        mobtk.train(trained)
    before = _losses(trained)
    mobtk.train(trained, resume=True)
    assert _losses(trained) == before


def test_accumulated_micro_batches_give_the_losses_of_whole_batches(city, tmp_path):
    """For the generator, whose loss is a mean over sequences (the codec's averages move with each micro-batch)."""

    def losses(accumulate):
        changes = {"tokenizer": "cells", "training.generator.accumulate": accumulate}
        run = mobtk.build("tiny", tmp_path / f"r{accumulate}", data=city.path, changes=changes)
        return [e["loss"] for e in mobtk.train(run).history()]

    assert losses(1) == pytest.approx(losses(4), rel=1e-4)


def test_part_of_an_epoch_ends_early_and_resumes_as_any(city, tmp_path, monkeypatch):
    changes = {"training.tokenizer.epochs": 0.5, "training.generator.epochs": 1.5, "training.generator.batch": 8}
    whole = mobtk.train(_build(city, tmp_path / "whole", **changes))
    # 80 training weeks: 2 batches of 32, then 10 of 8
    assert [(e["stage"], e["epoch"], e["step"]) for e in whole.history()] == [
        ("tokenizer", 1, 1),
        ("generator", 1, 10),
        ("generator", 2, 15),
    ]
    cut, step = _build(city, tmp_path / "cut", **changes), training._Trainer.step
    monkeypatch.setattr(training._Trainer, "step", lambda self, *a: os.kill(os.getpid(), signal.SIGINT) or step(self, *a))
    for _ in range(20):
        try:
            mobtk.train(cut, resume=True)
        except Stopped:
            continue
        break
    assert _losses(cut) == _losses(whole)


def test_patience_stops_early(city, tmp_path):
    changes = {"training.generator.epochs": 9, "training.generator.patience": 1, "training.generator.lr": 0.3}
    history = mobtk.train(_build(city, tmp_path / "r", **changes)).history()
    assert sum(e["stage"] == "generator" for e in history) < 9


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(trained, city, tmp_path):
    run = _build(city, tmp_path / "r")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "mobtk", "train", str(run.path)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = _losses(trained), _losses(run)
    assert [x[:2] for x in one] == [x[:2] for x in two]
    # sums are taken in another order: a step that lies between two codes may choose the other one
    assert [x[2] for x in two] == pytest.approx([x[2] for x in one], rel=0.01)


def test_a_batch_that_cannot_be_split_is_refused(city, tmp_path):
    run = _build(city, tmp_path / "r", **{"training.tokenizer.accumulate": 5})
    with pytest.raises(BadInput, match="a batch of 32 cannot be split.*multiple of 5"):
        mobtk.train(run)


def test_weights_that_are_not_safetensors_are_refused(trained, tmp_path):
    bad = tmp_path / "weights.safetensors"
    bad.write_bytes(b"\x80\x04 this is a pickle, or anything else")
    with pytest.raises(BadInput, match="is not a safetensors file"):
        load_weights(bad, trained.model())
    with pytest.raises(BadInput, match="is missing"):
        load_weights(tmp_path / "nothing.safetensors", trained.model())


def test_weights_of_another_model_are_refused(trained, city, tmp_path):
    other = _build(city, tmp_path / "r", width=24)
    with pytest.raises(BadInput, match="weights of another model"):
        load_weights(other.path / "weights.safetensors", trained.model())


def test_a_damaged_state_is_told(trained, city, tmp_path):
    run = _build(city, tmp_path / "r")
    (run.path / "state").mkdir()
    (run.path / "state" / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(BadInput, match="state.safetensors is damaged.*--restart"):
        mobtk.train(run, resume=True)


def test_history_is_one_line_an_epoch(trained):
    lines = (trained.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 1, 2]


def test_of_equally_good_epochs_the_last_is_kept(city, tmp_path, monkeypatch):
    """A tokenizer that decodes everything right from the start still learns."""
    run = _build(city, tmp_path / "r", **{"training.tokenizer.epochs": 3})
    monkeypatch.setattr("mobtk.tokenizers.rvq.ResidualVQ.health", lambda *_: {"accuracy": 1.0})
    mobtk.train(run, until="tokenizer")
    short = _build(city, tmp_path / "s", **{"training.tokenizer.epochs": 3, "training.tokenizer.patience": 1})
    mobtk.train(short, until="tokenizer")
    assert len(run.history()) == 3 and len(short.history()) == 2, "equally good is no progress"
    state = load_file(run.path / "state" / "state.safetensors")
    best = {k.removeprefix("best/"): v for k, v in state.items() if k.startswith("best/")}
    assert best and all(torch.equal(v, state[f"model/{k}"]) for k, v in best.items())
