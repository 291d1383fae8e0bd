"""What foreign code does to a process while it is imported: noticed, and undone where that can be done."""

import contextlib
import io
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

Setting = tuple[str, str | None, Any, Callable[[], Any], Callable[[Any], Any]]
"""What it is, the module it is of, its value before that is imported, and how to read and to set it."""


def _numpy() -> Any:
    return sys.modules["numpy"]


def _torch() -> Any:
    return sys.modules["torch"]


def _environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _filters(values: list[Any]) -> None:
    warnings.filters[:] = values  # type: ignore[index]
    getattr(warnings, "_filters_mutated", lambda: None)()  # else what was shown once is remembered by the old ones


def _handlers(values: list[logging.Handler]) -> None:
    logging.root.handlers[:] = values


SETTINGS: tuple[Setting, ...] = (
    ("environment variables", None, None, lambda: dict(os.environ), _environment),
    ("the working directory", None, None, os.getcwd, os.chdir),
    ("the state of random", None, None, random.getstate, random.setstate),
    ("handlers of the root logger", None, None, lambda: list(logging.root.handlers), _handlers),
    ("the level of the root logger", None, None, lambda: logging.root.level, logging.root.setLevel),
    (
        "numpy's handling of errors",
        "numpy",
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
        lambda: _numpy().geterr(),
        lambda value: _numpy().seterr(**value),
    ),
    (
        "the state of numpy.random",
        "numpy",
        None,
        lambda: tuple(x if isinstance(x, str | int | float) else tuple(x.tolist()) for x in _numpy().random.get_state()),
        lambda value: _numpy().random.set_state(value),
    ),
    (
        "torch's default type",
        "torch",
        "torch.float32",
        lambda: str(_torch().get_default_dtype()),
        lambda value: _torch().set_default_dtype(getattr(_torch(), value.removeprefix("torch."))),
    ),
    (
        "torch's default device",
        "torch",
        "cpu",
        lambda: str(_torch().get_default_device()),
        lambda value: _torch().set_default_device(value),
    ),
    ("torch's random seed", "torch", None, lambda: _torch().initial_seed(), lambda value: _torch().manual_seed(value)),
    ("torch's gradients", "torch", True, lambda: _torch().is_grad_enabled(), lambda value: _torch().set_grad_enabled(value)),
    ("torch's threads", "torch", None, lambda: _torch().get_num_threads(), lambda value: _torch().set_num_threads(value)),
)
"""Global state that an import should leave alone."""


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Import foreign code inside; what it printed or changed for everybody is in the list afterwards.

    What it prints does not reach standard output, where results are. Settings are put back, but for random numbers of
    libraries that it imported itself. A filter that hides every warning is taken out again.
    """
    notes: list[str] = []
    before = {name: read() for name, module, _, read, _ in SETTINGS if module is None or module in sys.modules}
    filters = list(warnings.filters)
    output, printed = sys.stdout, io.StringIO()
    sys.stdout = printed
    try:
        yield notes
    finally:
        sys.stdout = output
        if text := printed.getvalue().strip():
            notes.append(f"prints {text.splitlines()[0][:60]!r}")
        for name, module, default, read, restore in SETTINGS:
            if module is not None and module not in sys.modules:
                continue
            was = before.get(name, default)
            if was is not None and read() != was:
                notes.append(f"changes {name}")
                restore(was)
        if any(not f[1] and f[2] is Warning and not f[3] for f in warnings.filters if f not in filters):
            notes.append("filters every warning")
            _filters(filters)
