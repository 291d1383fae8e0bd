"""Writing to disk so that nothing is ever half-written: files and folders appear whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobtk.errors import BadInput

PathLike = str | os.PathLike[str]


@contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there when the block ends well, removed when it does not."""
    path = Path(path)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o666 & ~_umask())
        try:
            yield Path(name)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def new_folder(path: PathLike, *, replace: bool = False) -> Iterator[Path]:
    """The same for a folder, which must not exist unless ``replace``.

    Raises:
        BadInput: it exists, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise BadInput(f"{path} exists already; choose another folder, or replace it with --force")
    if path.exists() and (not path.is_dir() or path.resolve() in (Path.cwd(), *Path.cwd().parents)):
        raise BadInput(f"{path} cannot be replaced: it is not a folder of its own; choose another one")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        os.chmod(work, 0o777 & ~_umask())
        try:
            yield work
            if path.exists():
                shutil.rmtree(path)
            os.replace(work, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def write_text(path: PathLike, text: str) -> None:
    """Replace a small text file whole."""
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A full disk or a missing permission, in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError):
            raise
        raise BadInput(
            f"cannot write {path}: {error.strerror or error}; free some space or choose a folder you may write to"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
