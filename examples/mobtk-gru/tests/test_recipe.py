"""The recipe assembles, learns and is read again."""

import mobtk


def test_the_recipe_trains(tmp_path):
    stage = {"generate": "generator", "forecast": "forecaster", "complete": "completer"}["generate"]
    changes = {f"training.{stage}.epochs": 1}
    run = mobtk.build("gru.hourly", tmp_path / "run", weeks=60, changes=changes)
    mobtk.train(run)
    assert mobtk.Run(run.path).history()
