"""``mobtk data``: datasets."""

from typing import Any

import click
import msgspec

from mobtk.cli import force_option, json_option, settings, show


@click.group()
def data() -> None:
    """Make datasets of points, and look at them."""


def _bounds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    return None if value is None else _numbers(value, 4, "--bounds wants south,west,north,east in degrees")


def _shares(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    return _numbers(value, 3, "--shares wants three numbers, such as 0.7,0.1,0.2")


def _numbers(text: str, n: int, complaint: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != n:
        raise click.BadParameter(f"{complaint}, not {text!r}")
    return numbers


@data.command()
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--out", required=True, help="Folder of the dataset.")
@click.option("--user", default="user", show_default=True, help="Column that says who.")
@click.option("--time", default="time", show_default=True, help="Column that says when.")
@click.option("--lat", default="lat", show_default=True, help="Column of latitudes.")
@click.option("--lon", default="lon", show_default=True, help="Column of longitudes.")
@click.option("--places", metavar="FILE", help="Table that gives positions to ids of places, for check-ins.")
@click.option("--place", metavar="COLUMN", help="The id column in both tables.")
@click.option("--time-unit", help="What numeric times count: ns, us, ms, s, min, h, D.")
@click.option("--time-format", metavar="FORMAT", help="How times in words are written, such as '%d/%m/%Y %H:%M'; ISO 8601.")
@click.option("--time-origin", help="The moment they count from, in UTC if it has no offset; 1970 by default.")
@click.option(
    "--timezone",
    default="UTC",
    show_default=True,
    help="Where the people are, such as Asia/Shanghai; days and weeks begin there. Times without an offset are in UTC.",
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="Factor that makes degrees, such as 1e-6.")
@click.option("--bounds", callback=_bounds, metavar="S,W,N,E", help="Keep the points inside.")
@click.option("--mapper", default="grid", show_default=True, help="Spatial mapper.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Option of the mapper, such as size=500.")
@click.option("--step", default="1h", show_default=True, help="Duration of a step; or event: every point is a step.")
@click.option("--period", default="week", show_default=True, help="week, day, or a number of steps.")
@click.option("--coverage", type=float, default=0.5, show_default=True, help="Least share of steps with a point.")
@click.option("--gaps", default="hold", show_default=True, help="Steps without a point: hold, nearest or drop.")
@click.option("--max-gap", type=int, help="Steps a place is held for at most.")
@click.option("--split", default="user", show_default=True, help="By user or by time.")
@click.option("--shares", default="0.7,0.1,0.2", callback=_shares, show_default=True, help="Train, validation, test.")
@click.option("--clusters", type=int, default=8, show_default=True, help="Movement clusters.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--name", help="Name of the dataset.")
@click.option("--licence", default="not stated", help="Licence of the data, for the record.")
@force_option
@json_option
def prepare(files: tuple[str, ...], pairs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Make a dataset of FILES: CSV, Parquet or GeoParquet with a row a point.

    \b
    mobtk data prepare pings.csv -o my-city --user uid --time t --time-unit s --lat y --lon x
    mobtk data prepare checkins.parquet -o visits --step event --period 16 --split time --mapper places
    """
    from mobtk.data.prepare import prepare as prepare_files

    dataset = prepare_files(list(files), mapper_options=settings(pairs), **options)
    _show(dataset, as_json)


@data.command()
@click.argument("dataset")
@json_option
def info(dataset: str, as_json: bool) -> None:
    """What a DATASET holds, and what its preparation lost."""
    from mobtk.data.dataset import Dataset

    _show(Dataset(dataset), as_json)


@data.command()
@click.option("-o", "--out", required=True, help="Folder of the dataset.")
@click.option("--weeks", type=int, default=10_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--mapper", default="grid", show_default=True, help="Spatial mapper.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Option of the mapper, such as size=500.")
@force_option
@json_option
def city(out: str, weeks: int, seed: int, mapper: str, pairs: tuple[str, ...], replace: bool, as_json: bool) -> None:
    """Make a dataset of the built-in city."""
    from mobtk.data.city import prepare_city

    options = settings(pairs)
    dataset = prepare_city(out, weeks=weeks, seed=seed, mapper=mapper, mapper_options=options, replace=replace)
    _show(dataset, as_json)


def _show(dataset: Any, as_json: bool) -> None:
    import numpy as np

    from mobtk.data.funnel import table

    i = dataset.info
    cells = ", ".join(f"{n:,}" for n in dataset.mapper().n_cells)
    lat, lon = dataset.mapper().decode(np.unique(dataset.cells))
    area = f"latitude {lat.min():.3f} to {lat.max():.3f}, longitude {lon.min():.3f} to {lon.max():.3f}"
    text = (
        f"{dataset.path}: {i.name} (licence: {i.licence})\n"
        f"{len(dataset):,} sequences of {i.steps} steps of {i.step}: "
        + ", ".join(f"{rows:,} {split}" for split, rows in i.split.items())
        + f"\nmapper {dataset.mapper_spec['name']}, cells by level: {cells}; {area}\n"
        f"traits: {', '.join(i.trait_sizes)}\n\n{table(i.funnel)}"
    )
    show({"path": str(dataset.path), **msgspec.to_builtins(i), "mapper": dataset.mapper_spec["name"]}, as_json, text)
