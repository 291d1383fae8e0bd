"""mobtk: a mobility toolkit in which papers are plugins."""

import importlib
from typing import TYPE_CHECKING, Any

from mobtk._version import __version__ as __version__

if TYPE_CHECKING:
    from mobtk.comparing import compare as compare
    from mobtk.completing import complete as complete
    from mobtk.completing import evaluate_completer as evaluate_completer
    from mobtk.completing import predict as predict
    from mobtk.data.city import make_city as make_city
    from mobtk.data.city import prepare_city as prepare_city
    from mobtk.data.dataset import Dataset as Dataset
    from mobtk.data.field import Field as Field
    from mobtk.data.prepare import prepare as prepare
    from mobtk.data.prepare_field import make_field as make_field
    from mobtk.data.prepare_trajectories import make_trajectories as make_trajectories
    from mobtk.data.trajectories import Trajectories as Trajectories
    from mobtk.errors import MobtkError as MobtkError
    from mobtk.evaluation import evaluate as evaluate
    from mobtk.evaluation import evaluate_next_place as evaluate_next_place
    from mobtk.explaining import explain as explain
    from mobtk.forecasting import evaluate_forecaster as evaluate_forecaster
    from mobtk.forecasting import forecast as forecast
    from mobtk.generation import generate as generate
    from mobtk.plugins import hookimpl as hookimpl
    from mobtk.recipe import Recipe as Recipe
    from mobtk.runs import Run as Run
    from mobtk.runs import build as build
    from mobtk.schedule import Schedule as Schedule
    from mobtk.training import train as train

_PUBLIC = {
    "Dataset": "mobtk.data.dataset",
    "Field": "mobtk.data.field",
    "MobtkError": "mobtk.errors",
    "Recipe": "mobtk.recipe",
    "Run": "mobtk.runs",
    "Schedule": "mobtk.schedule",
    "Trajectories": "mobtk.data.trajectories",
    "build": "mobtk.runs",
    "compare": "mobtk.comparing",
    "complete": "mobtk.completing",
    "evaluate": "mobtk.evaluation",
    "evaluate_completer": "mobtk.completing",
    "evaluate_forecaster": "mobtk.forecasting",
    "evaluate_next_place": "mobtk.evaluation",
    "explain": "mobtk.explaining",
    "forecast": "mobtk.forecasting",
    "generate": "mobtk.generation",
    "hookimpl": "mobtk.plugins",
    "make_city": "mobtk.data.city",
    "make_field": "mobtk.data.prepare_field",
    "make_trajectories": "mobtk.data.prepare_trajectories",
    "predict": "mobtk.completing",
    "prepare": "mobtk.data.prepare",
    "prepare_city": "mobtk.data.city",
    "train": "mobtk.training",
}


def __getattr__(name: str) -> Any:
    """Import the public functions when first asked for, so that ``import mobtk`` costs nothing."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mobtk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
