"""Forecasting from end to end: known answers for scales, metrics and baselines; training, resuming, forecasting."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import mobtk
from mobtk.baselines.forecasts import fit_forecasts
from mobtk.data.field import Field, FieldInfo
from mobtk.errors import BadInput
from mobtk.forecasting import evaluate_forecaster, forecast, table
from mobtk.metrics.cards import CARDS
from mobtk.metrics.forecast import METRICS, ForecastErrors, PublishedErrors
from mobtk.models.scaling import measure, slots
from mobtk.recipe import Forecast, Recipe

DAY = 24
SMALL = {
    "width": 8, "tokenizer.length": 6, "backbone.depth": 1, "backbone.heads": 2, "forecast.history": 24,
    "forecast.horizon": 6,
    "training.forecaster.epochs": 2, "training.forecaster.batch": 16,
}  # fmt: skip


def _field(folder, values, cuts=None, nodes=None):
    steps = len(values)
    cuts = cuts or (steps * 6 // 10, steps * 8 // 10, steps)
    info = FieldInfo("made", "1h", "2024-01-01T00:00:00", values.shape, ("flow",), cuts)
    names = pd.DataFrame({"name": nodes or [f"n{i}" for i in range(values.shape[1])]})
    return Field.write(folder, info, values.astype(np.float32), names)


def _days(days=12, nodes=3, noise=0.3, seed=0):
    """A daily wave with an amplitude and a mean of each node."""
    t = np.arange(days * DAY)[:, None]
    rng = np.random.default_rng(seed)
    wave = 10 * (1 + np.arange(nodes)) * np.sin(2 * np.pi * t / DAY + np.arange(nodes)) + 100 * np.arange(1, nodes + 1)
    return (wave + noise * rng.normal(size=wave.shape))[..., None]


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return _field(tmp_path_factory.mktemp("field") / "field", _days())


@pytest.fixture(scope="module")
def run(field, tmp_path_factory):
    run = mobtk.build("forecaster", tmp_path_factory.mktemp("run") / "run", data=field.path, changes=SMALL)
    return mobtk.train(run)


# ---------------------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("scale", ["node", "field"])
@pytest.mark.parametrize("season", ["none", "day", "week"])
def test_scaled_training_values_have_mean_0_and_deviation_1(field, scale, season):
    scaler = measure(field, Forecast(scale=scale, season=season))
    which, _ = slots(field, season)
    end = field.split("train")[1]
    values = torch.from_numpy(np.array(field.values[None, :end]))
    at = torch.from_numpy(which[None, :end])
    scaled = scaler.scale(values, at)
    dims = (0, 1) if scale == "node" else (0, 1, 2)
    torch.testing.assert_close(scaled.mean(dims), torch.zeros_like(scaled.mean(dims)), atol=1e-4, rtol=0)
    deviation = scaled.square().mean(dims).sqrt()
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaler.unscale(scaled, at), values, atol=1e-3, rtol=0)


def test_only_the_training_split_and_what_was_measured_counts(tmp_path):
    values = _days(noise=0)
    values[3:40, 0] = np.nan
    values[:, 1] = np.nan
    expected = np.nanmean(values[:172, 0])
    values[172:, 0] = 1e6
    scaler = measure(_field(tmp_path / "field", values), Forecast())
    assert scaler.mean[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert scaler.mean.isfinite().all()
    assert scaler.std[1].item() == 1


@pytest.mark.parametrize("window", ["none", "last", "mean"])
def test_windows_are_scaled_without_their_gaps(field, window):
    scaler = measure(field, Forecast(window=window))
    history = torch.randn(2, 10, 3, 1) * 3 + 5
    history[0, 9, 0] = history[1, :, 1] = float("nan")
    x, width, shift = scaler.window(history)
    assert x.isfinite().all()
    if window == "none":
        torch.testing.assert_close(x[1, :, 0], history[1, :, 0])
    if window == "last":
        assert shift[0, 0, 0].item() == history[0, 8, 0].item()
        assert x[1, -1, 0].item() == 0
    if window == "mean":
        torch.testing.assert_close(shift[0, 0, 0], history[0, :9, 0].mean(0))
        torch.testing.assert_close(width[1, 0, 0], history[1, :, 0].std(0, correction=0))
    known = ~history.isnan()
    torch.testing.assert_close((x * width + shift)[known], history[known])


def test_a_field_shift_shifts_the_forecast(run, field):
    """With window='mean', the recipe's own, a history that is moved moves its forecast by as much."""
    model = run.forecaster()
    history = torch.from_numpy(np.array(field.values[None, :24]))
    at = torch.zeros(1, 30, dtype=torch.long)
    torch.testing.assert_close(model(history + 7, at), model(history, at) + 7, atol=1e-3, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- metrics


def test_known_errors():
    errors = ForecastErrors(2, np.array([[2.0]]))
    truth = np.array([[10.0, 20.0], [0.0, np.nan]])[..., None, None]
    guess = np.array([[11.0, 16.0], [3.0, 5.0]])[..., None, None]
    errors.add(truth, guess)
    expected = {
        "mae": 8 / 3,
        "rmse": (26 / 3) ** 0.5,
        "mape": (0.1 + 0.2) / 2,
        "wmape": 8 / 30,
        "scaled_mae": 4 / 3,
        "scaled_mse": 26 / 3 / 4,
    }
    assert errors.scores() == pytest.approx(expected)
    assert errors.by_step()["mae"] == pytest.approx([2.0, 4.0])
    assert errors.by_step()["wmape"] == pytest.approx([0.4, 0.2])


def test_known_errors_as_published():
    """Two batches: at a step the mean of their roots, by size; MAPE of what is above 0, divided by the truth plus .001."""
    errors = PublishedErrors(1, np.ones((1, 1)))
    errors.add(np.full((1, 1, 1, 1), 10.0), np.full((1, 1, 1, 1), 12.0))
    errors.add(np.full((3, 1, 1, 1), -5.0), np.full((3, 1, 1, 1), -5.0 + 4.0))
    found = errors.scores()
    assert found["rmse"] == pytest.approx((2 + 3 * 4) / 4)
    assert found["mape"] == pytest.approx(2 / 10.001)
    assert found["mae"] == pytest.approx((2 + 3 * 4) / 4)


def test_errors_do_not_hang_on_the_batches():
    rng = np.random.default_rng(0)
    truth, guess = rng.normal(size=(2, 30, 4, 3, 1))
    whole, parts = (ForecastErrors(4, np.ones((3, 1))) for _ in range(2))
    whole.add(truth, guess)
    for rows in np.array_split(np.arange(30), 7):
        parts.add(truth[rows], guess[rows])
    assert parts.scores() == pytest.approx(whole.scores())


def test_every_metric_has_a_card():
    assert set(METRICS) <= set(CARDS)


# ------------------------------------------------------------------------------------------------------- baselines


def test_baselines_by_hand(tmp_path):
    values = _days(days=20, noise=0)  # more than two weeks, so the season is a week
    field = _field(tmp_path / "field", values, cuts=(15 * DAY, 17 * DAY, 20 * DAY))
    found = fit_forecasts(field, 30, 12)
    starts = field.windows("test", 30, 12)
    truth = field.values[starts[:, None] + 30 + np.arange(12)]
    np.testing.assert_allclose(found["seasonal naive"](starts), truth, atol=1e-3)
    np.testing.assert_allclose(found["historical average"](starts), truth, atol=1e-3)
    np.testing.assert_allclose(found["ridge"](starts), truth, atol=0.05)
    last = found["last value"](starts)
    np.testing.assert_allclose(last, np.repeat(field.values[starts + 29][:, None], 12, 1))


def test_seasonal_naive_reads_nothing_from_the_horizon(tmp_path):
    """With a horizon longer than the season, it takes the last season that is over."""
    values = np.arange(12 * DAY, dtype=float)[:, None, None]
    field = _field(tmp_path / "field", values, cuts=(150, 220, 288))
    starts = np.array([100])
    found = fit_forecasts(field, 30, 60)["seasonal naive"](starts)[0, :, 0, 0]
    expected = [130 - DAY + h % DAY for h in range(60)]
    assert found.tolist() == expected


def test_baselines_know_nothing_of_the_test_split(tmp_path):
    values = _days()
    changed = values.copy()
    changed[-40:] += 1000
    a, b = (_field(tmp_path / name, v) for name, v in (("a", values), ("b", changed)))
    starts = a.windows("test", 24, 6)[:1]
    for name, guess in fit_forecasts(a, 24, 6).items():
        np.testing.assert_allclose(guess(starts), fit_forecasts(b, 24, 6)[name](starts), err_msg=name)


def test_ridge_learns_from_windows_with_gaps(tmp_path):
    """A tenth of the values is missing, so hardly any window of twelve steps is whole; the wave is foretold all the same."""
    values = _days(days=20, noise=0)
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    field = _field(tmp_path / "field", values)
    starts = field.windows("test", 48, 12)
    error = fit_forecasts(field, 48, 12)["ridge"](starts) - _days(days=20, noise=0)[starts[:, None] + 48 + np.arange(12)]
    assert np.abs(error).mean() < 0.1 * np.abs(_days(noise=0) - _days(noise=0).mean(0)).mean()


def test_baselines_live_with_gaps(tmp_path):
    values = _days()
    values[::5, 0] = np.nan
    values[:, 1] = np.nan
    field = _field(tmp_path / "field", values)
    for name, guess in fit_forecasts(field, 24, 6).items():
        assert np.isfinite(guess(field.windows("test", 24, 6))).all(), name


# ---------------------------------------------------------------------------------------------- training and after


@pytest.mark.parametrize(
    ("error", "of"),
    [("absolute", np.abs), ("squared", np.square), ("huber", lambda e: np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5))],
)
@pytest.mark.parametrize("loss", ["scaled", "real"])
def test_the_loss_is_the_mean_of_the_errors_that_were_measured(tmp_path, error, of, loss):
    values = _days()
    values[::7, 1] = np.nan
    field = _field(tmp_path / "field", values)
    changes = {**SMALL, "forecast.error": error, "forecast.loss": loss}
    model = mobtk.build("forecaster", tmp_path / "run", data=field.path, changes=changes).forecaster()
    shown = torch.from_numpy(np.array(field.values[None, : 24 + 6]))
    at = torch.zeros(1, 24 + 6, dtype=torch.long)
    off = (model(shown[:, :24], at) - shown[:, 24:]).detach()[0].numpy()
    if loss == "scaled":
        off = off / model.scaler.std.numpy()
    assert model.loss(shown, at)["error"].item() == pytest.approx(np.nanmean(of(off)), rel=1e-4)


def test_it_learns_and_is_scored_beside_baselines(run):
    result = evaluate_forecaster(run)
    assert list(result["scores"]) == ["model", "last value", "historical average", "seasonal naive", "ridge"]
    assert result["scores"]["model"]["mae"] < result["scores"]["last value"]["mae"]
    assert result["n"] == 58 - 6 + 1
    evaluate_forecaster(run, split="valid", baselines=False)  # which leaves the other file as it is
    kept, other = (json.loads((run.path / "results" / f"{n}.json").read_text()) for n in ("forecast", "forecast-valid"))
    assert kept["scores"]["model"]["mae"] == pytest.approx(result["scores"]["model"]["mae"])
    assert (kept["split"], other["split"]) == ("test", "valid")
    lines = table(result, [1, 6]).splitlines()
    assert lines[0].split()[-4:] == ["mae@1", "rmse@1", "mae@6", "rmse@6"]
    with pytest.raises(BadInput, match="reach 1 to 6 steps ahead; choose from those, not 7"):
        table(result, [7])


@pytest.mark.slow
def test_interrupted_and_resumed_it_ends_with_the_same_weights(field, tmp_path, run):
    torch.manual_seed(3)
    copy = mobtk.build("forecaster", tmp_path / "copy", data=field.path, changes=SMALL)
    code = (
        "import os, signal, mobtk.training as t\n"
        "step = t._Trainer.step\n"
        "def count(self, *a, **k):\n"
        "    if self.progress.step == 7: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(self, *a, **k)\n"
        "t._Trainer.step = count\n"
        f"t.train({str(copy.path)!r})\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Stopped" in killed.stderr
    mobtk.train(copy, resume=True)
    for (name, a), b in zip(copy.forecaster().state_dict().items(), run.forecaster().state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_forecast_says_what_was_what_is_and_what_will_be(run, field):
    found = forecast(run, nodes=["n1"])
    assert len(found) == 30
    assert found["history"].notna().sum() == 24
    assert found["truth"].notna().sum() == found["forecast"].notna().sum() == 6
    np.testing.assert_allclose(found["truth"][24:], field.values[-6:, 1, 0])
    future = forecast(run, at="end")
    assert future["time"].max() == field.times()[-1] + pd.Timedelta("6h")
    assert future["truth"].isna().all()
    assert future["forecast"].notna().sum() == 18
    at = forecast(run, at="2024-01-05T00:00", nodes=["n0"])
    assert at["time"][24] == pd.Timestamp("2024-01-05")


@pytest.mark.parametrize("season", ["day", "week"])
def test_the_future_has_the_seasons_of_the_past(field, tmp_path, season):
    """A model that foretells 0 in scaled units foretells the mean of the season."""
    changes = SMALL | {"forecast.season": season, "forecast.window": "none"}
    run = mobtk.build("forecaster", tmp_path / "run", data=field.path, changes=changes)
    model = run.forecaster()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    from mobtk.runs import save_weights

    save_weights(run.path / "weights.safetensors", model)
    found = forecast(run, at="end", nodes=["n0"])
    expected = 10 * np.sin(2 * np.pi * np.arange(6) / DAY) + 100
    np.testing.assert_allclose(found["forecast"][24:], expected, atol=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "2024-01-01T05:00"}, "is not one of the steps of 1h from 2024-01-02 00:00:00 to"),
        ({"at": "2024-01-05T00:30"}, "is not one of the steps"),
        ({"at": "soon"}, "--at soon is no moment"),
        ({"at": "2024-01-01T05:00Z"}, "is not one of the steps"),
        ({"nodes": ["n9"]}, "has no node 'n9'; it has n0, n1, n2"),
    ],
)
def test_a_forecast_of_nothing_is_refused(run, options, message):
    with pytest.raises(BadInput, match=message):
        forecast(run, **options)


def test_another_field_must_fit(run, tmp_path):
    other = _field(tmp_path / "other", _days(seed=1))
    assert evaluate_forecaster(run, data=other.path)["scores"]["model"]["mae"] > 0
    wrong = _field(tmp_path / "wrong", _days(nodes=2))
    with pytest.raises(BadInput, match="has other nodes than the model"):
        evaluate_forecaster(run, data=wrong.path)


def test_a_field_that_is_cut_otherwise_is_not_the_one_it_learned_from(tmp_path):
    values = _days()
    field = _field(tmp_path / "field", values)
    run = mobtk.build("forecaster", tmp_path / "run", data=field.path, changes=SMALL)
    shutil.rmtree(field.path)
    _field(tmp_path / "field", values, cuts=(100, 150, 288))
    with pytest.raises(BadInput, match="was made again since run"):
        evaluate_forecaster(run)


def test_a_field_shorter_than_what_a_forecast_reads(run, tmp_path):
    short = _field(tmp_path / "short", _days()[:20], cuts=(10, 15, 20))
    for at in (None, "end"):
        with pytest.raises(BadInput, match="has 20 steps, fewer than the 24 that a forecast reads"):
            forecast(run, at=at, data=short.path)
    longer = _field(tmp_path / "longer", _days()[:26], cuts=(10, 15, 26))
    with pytest.raises(BadInput, match="have 24 steps before them"):
        forecast(run, data=longer.path)


def test_the_weeks_of_a_short_field_go_on(tmp_path):
    """Five days from a Monday: what follows is Saturday's place in the week, though there is no Saturday in it."""
    field = _field(tmp_path / "field", _days(days=5))
    assert slots(field, "week", np.array([120]))[0].tolist() == [5 * 24]


def test_a_validation_split_without_values_is_told(tmp_path):
    values = _days()
    values[172:230] = np.nan
    run = mobtk.build("forecaster", tmp_path / "run", data=_field(tmp_path / "field", values).path, changes=SMALL)
    with pytest.raises(BadInput, match="the validation split of field .* holds no value"):
        mobtk.train(run)


def test_a_recipe_of_one_task_refuses_settings_of_the_other():
    with pytest.raises(BadInput, match="setting 'training.privacy' is not of its task, which is to forecast"):
        Recipe.loads('task = "forecast"\n[training.privacy]\nepsilon = 1.0')


def test_tasks_are_not_mixed_up(run, trained, city, field, tmp_path):
    with pytest.raises(BadInput, match="forecasts a field; this wants one that places people"):
        mobtk.generate(run, 10)
    with pytest.raises(BadInput, match="places people; this wants one that forecasts a field"):
        evaluate_forecaster(trained)
    with pytest.raises(BadInput, match="and wants a field"):
        mobtk.build("forecaster", tmp_path / "x", data=city.path)
    with pytest.raises(BadInput, match="and wants sequences"):
        mobtk.build("tiny", tmp_path / "x", data=field.path)
    with pytest.raises(BadInput, match="'traits' is not of the task of this recipe, which is to forecast"):
        mobtk.build("forecaster", tmp_path / "x", data=field.path, changes={"traits": ["home"]})
    assert not (tmp_path / "x").exists()


def test_a_recipe_holds_what_is_of_its_task(run, trained):
    ours, theirs = run.recipe.dumps(), trained.recipe.dumps()
    assert "mapper" not in ours
    assert "sampling" not in ours
    assert "forecast" not in theirs
    assert "mixer" not in theirs
    assert Recipe.loads(ours) == run.recipe


def test_commands_from_field_to_picture(run, tmp_path):
    def mobtk_(*args):
        done = subprocess.run([sys.executable, "-m", "mobtk", *args], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "seasonal naive" in mobtk_("evaluate", str(run.path), "--steps", "3")
    out = mobtk_("forecast", str(run.path), "--nodes", "n0", "-o", "f.csv", "--picture", "f.png")
    assert "forecast" in out
    assert len(pd.read_csv(tmp_path / "f.csv")) == 30
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


def test_the_field_of_the_city_needs_no_data(tmp_path):
    run = mobtk.build("forecaster", tmp_path / "run", weeks=40, changes=SMALL)
    assert run.field().info.channels == ("count", "inflow", "outflow")
    assert evaluate_forecaster(run, baselines=False)["n"] > 0
