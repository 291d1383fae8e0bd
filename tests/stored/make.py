"""Write a run of each task as this mobtk makes it, and what their models say."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import mobtk
from mobtk.testing.fixtures import walks

HERE = Path(__file__).parent
SMALL = {"width": 8, "training.seed": 3}


def answers(folder: Path) -> dict[str, list[float]]:
    """A few numbers that each run's model says of inputs that never change."""
    torch.manual_seed(0)
    generator = mobtk.Run(folder / "generator").model()
    steps = torch.arange(168)
    cells = (steps // 24 * 3 + torch.arange(2)[:, None]) % 20
    traits = torch.tensor([[1, 2, 0], [3, 4, 1]])
    with torch.inference_mode():
        of_tokens = generator.token_losses(generator.tokenizer.encode(cells), traits)
        completer = mobtk.Run(folder / "completer").completer()
        place, time = completer.next_points(walks(2, 12))
        forecaster = mobtk.Run(folder / "forecaster").forecaster()
        slots = torch.zeros(1, 30, dtype=torch.long)
        told = forecaster(torch.linspace(0, 5, 72).view(1, 24, 3, 1), slots)
    return {
        "generator": of_tokens[:, ::12].flatten().tolist(),
        "completer": torch.cat([place[0].flatten(), time[0]]).tolist(),
        "forecaster": told.flatten().tolist(),
    }


def main() -> None:
    """Make the folder of this release."""
    out = HERE / mobtk.__version__
    if out.exists():
        sys.exit(f"{out} exists; what a release wrote is not changed")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        mobtk.train(mobtk.build("tiny", work / "generator", weeks=60, changes=SMALL))
        mobtk.train(mobtk.build("completer", work / "completer", weeks=40, changes={
            **SMALL, "training.completer.epochs": 1, "backbone.depth": 1, "backbone.heads": 2}))  # fmt: skip
        hours = pd.date_range("2026-01-05", periods=400, freq="h")
        table = pd.DataFrame({n: np.sin(np.arange(400) / 4 + i).round(3) for i, n in enumerate("abc")}, index=hours)
        table.rename_axis("time").to_csv(work / "values.csv")
        field = mobtk.make_field(work / "values.csv", work / "field")
        mobtk.train(mobtk.build("forecaster", work / "forecaster", data=field.path, changes={
            **SMALL, "forecast.history": 24, "forecast.horizon": 6, "training.forecaster.epochs": 1,
            "backbone.depth": 1, "backbone.heads": 2}))  # fmt: skip
        out.mkdir()
        for run in ("generator", "completer", "forecaster"):
            ignored = shutil.ignore_patterns("state", "data")
            shutil.copytree(work / run, out / run, ignore=ignored)
        shutil.copytree(work / "field", out / "field")
    (out / "answers.json").write_text(json.dumps(answers(out), indent=1) + "\n")


if __name__ == "__main__":
    main()
