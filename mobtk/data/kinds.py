"""Data on disk of any kind: sequences of cells, a field, or trajectories."""

import tomllib
from pathlib import Path

from mobtk.data.dataset import Dataset
from mobtk.data.field import Field
from mobtk.data.trajectories import Trajectories
from mobtk.plugins import loaded
from mobtk.storage import PathLike

KINDS: dict[str, type[Field] | type[Trajectories]] = {"field": Field, "trajectories": Trajectories}


def kind_of(path: PathLike) -> str:
    """What a folder says that it holds: ``field``, ``trajectories``, or else ``sequences``."""
    file = Path(path) / "dataset.toml"
    try:
        return str(tomllib.loads(file.read_text(encoding="utf-8")).get("kind", "sequences"))
    except (OSError, ValueError):
        return "sequences"  # it is damaged or none: whoever opens it says how


def open_dataset(path: PathLike) -> Dataset | Field | Trajectories:
    """The data of a folder, whatever kind it is, with the plugins that lie beside it."""
    loaded().add_beside(path)
    return KINDS.get(kind_of(path), Dataset)(path)
