"""Writing to disk so that nothing is ever half-written: files and folders appear whole, or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mobtk.errors import BadInput, TryAgain

if TYPE_CHECKING:
    import pandas as pd

PathLike = str | os.PathLike[str]

OURS = ("dataset.toml", "recipe.toml", "visits.toml")
"""A folder with one of these is a dataset, a run or a set of visits, which may be replaced as a whole."""


@contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there when the block ends well, removed when it does not."""
    path = Path(path)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o666 & ~_umask())  # only now: some writers put a file of their own in its place
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def new_folder(path: PathLike, *, replace: bool = False, inputs: Iterable[PathLike] = ()) -> Iterator[Path]:
    """The same for a folder, which must not exist unless ``replace``, and then is a dataset or a run, or empty.

    Raises:
        BadInput: it exists, holds one of the ``inputs`` or other things than ours, or cannot be written.
    """
    path = Path(path)
    check_replaceable(path, replace, inputs)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        os.chmod(work, 0o777 & ~_umask())
        try:
            yield work
            aside = work.with_name(f"{work.name}.old")
            if path.exists():
                os.replace(path, aside)
            try:
                os.replace(work, path)
            except OSError:
                if aside.exists():
                    os.replace(aside, path)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def check_replaceable(path: PathLike, replace: bool, inputs: Iterable[PathLike] = ()) -> None:
    """Refuse an output folder that must not be written: see :func:`new_folder`."""
    path = Path(path)
    if not path.exists():
        return
    if not replace:
        raise BadInput(f"{path} exists already; choose another folder, or replace it with --force")
    if not path.is_dir() or not (any((path / name).is_file() for name in OURS) or not any(path.iterdir())):
        raise BadInput(f"{path} is not replaced: it is no dataset and no run; choose another folder")
    lost = [str(i) for i in inputs if Path(i).resolve().is_relative_to(path.resolve())]
    if lost:
        raise BadInput(f"{path} is not replaced: {lost[0]}, which is needed, lies in it; choose another folder")


def check_new_file(path: PathLike, replace: bool) -> None:
    """Refuse an output file that exists, unless it may be replaced."""
    path = Path(path)
    if path.exists() and (not replace or not path.is_file()):
        raise BadInput(
            f"{path} exists already; choose another name" + (", or replace it with --force" if path.is_file() else "")
        )


def fingerprint(path: PathLike) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_table(path: PathLike, table: "pd.DataFrame") -> None:
    """Replace a file by a table, whole or not at all: as CSV or Parquet, by its ending."""
    with new_file(path) as draft:
        if str(path).endswith(".csv"):
            table.to_csv(draft, index=False)
        else:
            table.to_parquet(draft, index=False)


def write_text(path: PathLike, text: str) -> None:
    """Replace a small text file whole."""
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def to_json(result: Any) -> str:
    """A result as JSON, which knows no NaN: what is not defined is null."""

    def plain(value: Any) -> Any:
        return value.item() if hasattr(value, "item") else str(value)

    return msgspec.json.format(msgspec.json.encode(result, enc_hook=plain), indent=1).decode()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A full disk or a missing permission, in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError):
            raise
        raise TryAgain(
            f"cannot write {path}: {error.strerror or error}; free some space or choose a folder you may write to"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
