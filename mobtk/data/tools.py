"""Datasets out of datasets: a sample, another split, several in one; and whether one that somebody sent is sound."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from mobtk.data.cut import SPLITS, check_split, divide
from mobtk.data.dataset import Dataset, Info, fixed_list, list_column
from mobtk.data.funnel import Loss
from mobtk.data.traits import movement
from mobtk.errors import BadInput, first_line
from mobtk.storage import PathLike, fingerprint


def sample(
    dataset: Dataset,
    out: PathLike,
    *,
    users: int | None = None,
    share: float | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Dataset:
    """A dataset of some users drawn at random, with all their sequences, in the splits they were in.

    Args:
        dataset: any.
        out: folder of the new one.
        users: how many; or
        share: of all.
        seed: of the draw.
        replace: replace an existing folder.
    """
    if (users is None) == (share is None):
        raise BadInput("a sample is of a number of --users or of a --share of them, one of both")
    names = np.unique(dataset.users.astype(str))
    n = users if users is not None else round(float(share or 0) * len(names))
    if not 1 <= n <= len(names):
        raise BadInput(f"a sample is of 1 to {len(names)} users here, not {n}")
    rng = np.random.default_rng(seed)
    chosen = names[np.sort(rng.permutation(len(names))[:n])]
    keep = np.isin(dataset.users.astype(str), chosen)
    table = dataset.to_arrow().filter(pa.array(keep))
    person = np.unique(table["user"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
    told = Loss("sample", n, _points(dataset, table), len(table), f"{len(names) - n:,} users were not drawn")
    return _write(dataset, out, table, {"person": person.astype(np.int32)}, [told], [dataset], replace, persons=n)


def resplit(
    dataset: Dataset, out: PathLike, *, split: str = "user", shares: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0,
    replace: bool = False,
) -> Dataset:  # fmt: skip
    """The same sequences, split anew; movement clusters are fitted anew on the new training rows. See ``prepare``."""
    check_split(split, shares, seed)
    own, cuts, people = _divide(dataset, dataset.to_arrow(), split, shares, seed)
    told = Loss(f"split by {split}", people, _points(dataset, dataset.to_arrow()), len(dataset), "0 sequences")
    changes = {"split": split, "shares": list(shares), "seed": seed}
    return _write(dataset, out, dataset.to_arrow(), own, [told], [dataset], replace, people, cuts, changes)


def merge(
    datasets: Sequence[Dataset], out: PathLike, *, prefix: bool = False, split: str = "user",
    shares: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0, replace: bool = False,
) -> Dataset:  # fmt: skip
    """Several datasets of one mapper and one kind of step as one, split anew.

    Args:
        datasets: two or more. A user of one name in several is one person, unless
        prefix: puts the name of the dataset before each.
        out, split, shares, seed, replace: see ``prepare``.

    Raises:
        BadInput: they do not fit, or have a sequence of one user and one start twice.
    """
    check_split(split, shares, seed)
    if len(datasets) < 2:
        raise BadInput("a merge wants two datasets at least")
    first = datasets[0]
    for other in datasets[1:]:
        for what in ("step", "steps"):
            if getattr(other.info, what) != getattr(first.info, what):
                raise BadInput(
                    f"{other.path} has {other.info.steps} steps of {other.info.step}, {first.path} has "
                    f"{first.info.steps} of {first.info.step}; prepare them alike"
                )
        if other.mapper_spec != first.mapper_spec:
            raise BadInput(
                f"{other.path} and {first.path} have other cells; prepare both files in one command, or with the same "
                "--bounds and mapper options"
            )
    columns = [c for c in first.to_arrow().column_names if all(c in d.to_arrow().column_names for d in datasets)]
    tables = []
    for d in datasets:
        table = d.to_arrow().select(columns)
        if prefix:
            named = pa.array([f"{d.info.name}/{u}" for u in d.users], pa.string())
            table = table.set_column(table.column_names.index("user"), "user", named)
        tables.append(table)
    table = pa.concat_tables(tables).combine_chunks()
    keys = np.array([f"{u}\x00{s}" for u, s in zip(table["user"].to_pylist(), table["start"].to_pylist(), strict=True)])
    if len(np.unique(keys)) < len(keys):
        raise BadInput(
            f"{len(keys) - len(np.unique(keys)):,} sequences have the user and start of another; if users of one name are "
            "different people, give --prefix"
        )
    own, cuts, people = _divide(first, table, split, shares, seed)
    told = Loss(f"merge of {len(datasets)}", people, _points(first, table), len(table), "0 sequences")
    changes = {"split": split, "shares": list(shares), "seed": seed}
    return _write(first, out, table, own, [told], datasets, replace, people, cuts, changes)


def extend(
    dataset: Dataset, out: PathLike, users: Sequence[str], cells: NDArray[np.int32], like: NDArray[np.int64], *,
    settings: Mapping[str, Any], replace: bool = False,
) -> Dataset:  # fmt: skip
    """A copy with sequences added to the training split, whose traits and dates are those of other rows.

    Args:
        dataset: to copy.
        out: folder of the copy.
        users: names of the new people, one a sequence.
        cells: ``(n, T)``.
        like: row that each takes everything else from.
        settings: what to note of it in the settings of the copy.
        replace: replace an existing folder.
    """
    table = dataset.to_arrow()
    named = table["user"].cast(pa.string())
    table = table.set_column(table.column_names.index("user"), "user", named)
    names, number = np.unique(np.asarray(users, str), return_inverse=True)
    persons = dataset.info.trait_sizes.get("person", 0)
    more = table.take(pa.array(like))
    own = {
        "user": pa.array(users, pa.string()),
        "cells": fixed_list(cells.astype(np.int64)),
        "split": pa.array(["train"] * len(more), table.schema.field("split").type),
        "person": pa.array((persons + number).astype(np.int32)),
    }
    for name, values in own.items():
        if name in more.column_names:
            more = more.set_column(more.column_names.index(name), table.schema.field(name), values)
    both = pa.concat_tables([table, more]).combine_chunks()
    return _write(dataset, out, both, {}, [], [dataset], replace, persons + len(names), settings=settings)


def _points(like: Dataset, table: pa.Table) -> int:
    """Steps with a point, as far as it is known."""
    if "observed" in table.column_names:
        return int(table["observed"].to_numpy().sum())
    return len(table) * like.info.steps


def _divide(
    like: Dataset, table: pa.Table, split: str, shares: Sequence[float], seed: int
) -> tuple[dict[str, NDArray], list[float], int]:
    """See :func:`~mobtk.data.cut.divide`."""
    cells = list_column(table, "cells").astype(np.int64)
    home, work = (table[c].to_numpy().astype(np.int64) for c in ("home", "work"))
    features = movement(cells, home, work, like.mapper())
    start = table["start"].to_numpy().astype("datetime64[s]").astype(np.int64)
    ends = list_column(table, "moments")[:, -1] if "moments" in table.column_names else start
    users = table["user"].to_numpy(zero_copy_only=False).astype(str)
    return divide(users, ends, features, split, shares, like.info.trait_sizes["cluster"], seed)


def _write(
    like: Dataset, out: PathLike, table: pa.Table, own: Mapping[str, NDArray], told: list[Loss], sources: Sequence[Dataset],
    replace: bool, persons: int, cuts: list[float] | None = None, settings: Mapping[str, Any] | None = None,
) -> Dataset:  # fmt: skip
    """A dataset like another, with other rows and some other columns."""
    for name, values in own.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    info: Info = msgspec.convert(msgspec.to_builtins(like.info), Info)
    if "person" in table.column_names:
        info.trait_sizes["person"] = persons
    info.funnel = [*(loss for loss in like.info.funnel if len(sources) == 1), *told]
    info.sources = [f"{d.path} ({d.fingerprint[:16]})" for d in sources]
    info.licence = "; ".join(dict.fromkeys(d.info.licence for d in sources))
    info.name = " + ".join(dict.fromkeys(d.info.name for d in sources))
    info.settings |= settings or {}
    info.cuts = like.info.cuts if cuts is None else cuts
    inputs = [d.path for d in sources]
    mapper = (like.mapper_spec["name"], like.mapper())
    return Dataset.write(out, info, mapper, [table], replace=replace, inputs=inputs)


class Finding(Struct):
    """One thing that was looked at in :func:`validate`: what should hold, whether it does, and what was found."""

    what: str
    sound: bool
    found: str = ""


def validate(path: PathLike, *, sent: str | None = None) -> list[Finding]:
    """Whether a dataset folder is sound, complete and as it was written.

    Hashes find what changed on the way: of the sequences and the mapper, as ``dataset.toml`` has them. Against somebody who
    changes data and hashes alike, or ``dataset.toml`` itself, only the fingerprint helps, told by another road: ``mobtk data
    info`` prints it.

    Args:
        path: the folder.
        sent: the fingerprint that the sender told.
    """
    found: list[Finding] = []
    try:
        _validate(path, sent, found)
    except Exception as error:  # whatever somebody sends
        found.append(Finding("its files are as mobtk writes them", False, f"{type(error).__name__}: {first_line(error)}"))
    return found


def _validate(path: PathLike, sent: str | None, found: list[Finding]) -> None:
    try:
        dataset = Dataset(path)
    except BadInput as error:
        found.append(Finding("it can be read", False, str(error)))
        return
    found.append(Finding("it can be read", True, f"{len(dataset):,} sequences of {dataset.info.steps} steps"))

    def hold(what: str, sound: bool, detail: str) -> None:
        found.append(Finding(what, bool(sound), detail))

    info = dataset.info
    if sent is not None:
        hold("its fingerprint is the one that was told", dataset.fingerprint == sent.strip().lower(), dataset.fingerprint)
    for name, recorded in (("sequences.parquet", info.sha256), ("mapper.json", info.mapper_sha256)):
        actual = fingerprint(dataset.path / name)
        hold(f"{name} is as it was written", actual == recorded, actual[:16] if recorded else "no hash was recorded")
    others = sorted(
        f.name for f in dataset.path.iterdir() if f.name not in ("dataset.toml", "mapper.json", "sequences.parquet")
    )
    hold("nothing else lies in the folder", not others, ", ".join(others[:5]) or "nothing")
    try:
        n_cells = dataset.mapper().n_cells[0]
        hold("its mapper can be made", True, f"{n_cells:,} cells")
    except Exception as error:
        hold("its mapper can be made", False, first_line(error))
        return
    cells, rows = dataset.cells, len(dataset)
    hold("it has rows", rows > 0, f"{rows:,}")
    if not rows:
        return
    hold("sequences have the length that is told", cells.shape == (rows, info.steps), f"{cells.shape[1]} steps")
    hold("every cell is one of the mapper's", cells.min() >= 0 and cells.max() < n_cells, f"{cells.min()} to {cells.max()}")
    splits = {s: len(dataset.rows(s)) for s in SPLITS}
    hold("rows of each split are as told", splits == info.split, ", ".join(f"{v:,} {k}" for k, v in splits.items()))
    if not info.cuts:
        sides = {(u, s) for u, s in zip(dataset.users, dataset.column("split"), strict=True)}
        both = len(sides) - len(np.unique(dataset.users.astype(str)))
        hold("no user is in two splits", not both, f"{both:,} are")
    for name, size in info.trait_sizes.items():
        values = dataset.column(name)
        hold(
            f"trait {name!r} is within its size",
            values.min() >= 0 and values.max() < size,
            f"{values.min()} to {values.max()}",
        )
    points = [loss.points for loss in info.funnel]
    hold("its funnel only narrows", all(b <= a for a, b in pairwise(points)), f"{len(points)} steps")


def card(dataset: Dataset) -> dict[str, Any]:
    """What there is to know of a dataset: ``mobtk data info`` prints it."""
    i = dataset.info
    lat, lon = dataset.mapper().decode(np.unique(dataset.cells))
    users, counts = np.unique(dataset.users.astype(str), return_counts=True)
    part = dataset.column("split")
    stay = float((dataset.cells[:, 1:] == dataset.cells[:, :-1]).mean()) if len(dataset) else 0.0
    told: dict[str, Any] = {
        "path": str(dataset.path),
        **msgspec.to_builtins(i),
        "mapper": dataset.mapper_spec["name"],
        "cells": list(dataset.mapper().n_cells),
        "area": [float(v) for v in (lat.min(), lon.min(), lat.max(), lon.max())],
        "from": str(dataset.starts.min())[:19],
        "to": str(np.datetime64(int(dataset.moments().max()), "s")),
        "rows": len(dataset),
        "users": len(users),
        "users_by_split": {s: len(np.unique(dataset.users[part == s].astype(str))) for s in SPLITS},
        "sequences_per_user": [float(q) for q in np.quantile(counts, [0.05, 0.5, 0.95])],
        "steps_in_the_same_cell": stay,
        "fingerprint": dataset.fingerprint,
    }
    if "observed" in dataset.to_arrow().column_names:
        told["steps_observed"] = float(dataset.column("observed").mean() / i.steps)
    return told
