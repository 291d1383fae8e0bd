import os

os.environ["OMP_NUM_THREADS"] = "1"  # two threads on a busy machine are slower than one

import sys
import types

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# the shapes in the signatures are checked in every test; an int will do for a float
checker = types.ModuleType("checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules["checker"] = checker
CHECKED = [
    f"mobtk.{room}"
    for room in ("schedule", "contracts", "mappers", "tokenizers", "backbones", "routers", "mixers", "models")
]
install_import_hook([*CHECKED, "mobtk_mstar", "mobtk_stm3", "mobtk_trajfm"], "checker.check")

from pathlib import Path

import pytest
import torch

import mobtk
from mobtk.data.dataset import Dataset

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws its weights and noise alike, whatever ran before it."""
    torch.manual_seed(4)


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data of shared/data are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """160 weeks of 40 people."""
    return mobtk.prepare_city(tmp_path_factory.mktemp("city") / "city", weeks=160)


@pytest.fixture(scope="session")
def trained(city: Dataset, tmp_path_factory: pytest.TempPathFactory) -> mobtk.Run:
    """A tiny run, trained."""
    run = mobtk.build("tiny", tmp_path_factory.mktemp("run") / "run", data=city.path)
    return mobtk.train(run)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> mobtk.Run:
    """A tiny run that has generated and was evaluated."""
    run = mobtk.train(mobtk.build("tiny", tmp_path_factory.mktemp("scored") / "run", weeks=400))
    mobtk.generate(run, 80)
    mobtk.evaluate(run)
    return run
