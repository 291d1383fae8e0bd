"""Laws of masks."""

from collections.abc import Iterator

import numpy as np

from mobtk.contracts import (
    Hidden,
    Mask,
)
from mobtk.testing.laws.common import Law, options_have_defaults


def _hides(kind: type[Mask]) -> Iterator[tuple[int, Hidden, Hidden]]:
    """What a mask chooses of short and long paths, twice with one seed."""
    for n in sorted({kind.least, 7, 60}):
        rng = np.random.default_rng(n)
        time, place = np.cumsum(rng.uniform(1, 30, n)), np.cumsum(rng.normal(0, 40, (n, 2)), axis=0)
        a, b = (kind()(time, place, np.random.default_rng(5)) for _ in range(2))
        yield n, a, b


def masks_ask_something(kind: type[Mask]) -> None:
    """Of every trajectory that is long enough some place or moment is hidden; its first point is shown."""
    for n, hidden, _ in _hides(kind):
        assert (hidden.place | hidden.time).any(), f"of {n} points nothing is hidden"
        assert not (hidden.place | hidden.time | hidden.absent)[0], f"of {n} points the first is not shown"


def masks_are_flags(kind: type[Mask]) -> None:
    """There is a flag for each point, and what is absent is not asked for."""
    for n, hidden, _ in _hides(kind):
        for name in ("place", "time", "absent"):
            flags = getattr(hidden, name)
            assert flags.shape == (n,) and flags.dtype == bool, f"{name} is {flags.dtype} {flags.shape} of {n} points"
        assert not (hidden.absent & (hidden.place | hidden.time)).any(), "some point is absent and asked for"


def masks_are_repeatable(kind: type[Mask]) -> None:
    """The same random numbers hide the same."""
    for _, a, b in _hides(kind):
        assert all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("place", "time", "absent")), (
            "the same random numbers hide other points"
        )


LAWS: tuple[Law, ...] = (
    masks_ask_something,
    masks_are_flags,
    masks_are_repeatable,
    options_have_defaults,
)
