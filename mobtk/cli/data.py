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


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(","))


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    import pandas as pd

    try:
        return float(pd.Timedelta(value).total_seconds())
    except ValueError:
        raise click.BadParameter(f"{value!r} is no duration; try 5min") from None


def _together(*options: Any) -> Any:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


reading_options = _together(
    click.option("--format", default="auto", show_default=True, help="auto, or a name that `mobtk data formats` lists."),
    click.option("--user", help="Column that says who; found by its name. @file or @folder: the name of those."),
    click.option("--time", help="Column that says when; or year,month,day,hour of those."),
    click.option("--lat", help="Column of latitudes; of y where there is a --crs."),
    click.option("--lon", help="Column of longitudes; of x where there is a --crs."),
    click.option("--accuracy", help="Column of the accuracy, metres."),
    click.option("--columns", callback=_names, metavar="A,B,...", help="Names of the columns of a text without a header."),
    click.option("--separator", help="What parts the columns of a text: a character, or tab or space; found by looking."),
    click.option("--decimal", default=".", show_default=True, help="The decimal point of a text."),
    click.option("--encoding", help="Of a text; UTF-8."),
    click.option("--time-unit", help="What numeric times count: ns, us, ms, s, min, h, D, or a duration such as 10ms."),
    click.option("--time-origin", help="The moment they count from, in UTC if it has no offset; 1970."),
    click.option("--time-format", metavar="FORMAT", help="How times in words are written, such as '%d/%m/%Y %H:%M'; ISO 8601."),
    click.option("--naive", default="UTC", show_default=True, help="Zone of times without an offset."),
    click.option("--scale", type=float, default=1.0, show_default=True, help="Factor that makes degrees, such as 1e-6."),
    click.option("--crs", help="Coordinate system of the positions, such as EPSG:25832; metres: a plane without a place."),
    click.option("--places", metavar="FILE", help="Table that gives positions to ids of places, for check-ins."),
    click.option("--place", metavar="COLUMN", help="The id column in both tables."),
)
rule_options = _together(
    click.option("--bounds", callback=_bounds, metavar="S,W,N,E", help="Keep the points inside."),
    click.option("--since", help="Keep the points from this moment on."),
    click.option("--until", help="Keep the points before this moment."),
    click.option("--max-accuracy", type=float, metavar="METRES", help="Drop less accurate points."),
    click.option("--max-speed", type=float, metavar="KM/H", help="Drop points that the last one kept cannot reach so."),
    click.option("--trim", callback=_seconds, default="0s", show_default=True, help="Drop so much at both ends of a track."),
    click.option("--track-gap", callback=_seconds, default="1h", show_default=True, help="What ends a track."),
)
worker_options = _together(
    click.option("--workers", type=int, default=0, help="Processes that share the work, by Dask."),
    click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler whose workers do it; they see the same files."),
)


@data.command()
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--out", required=True, help="Folder of the dataset.")
@reading_options
@rule_options
@click.option(
    "--timezone", default="UTC", show_default=True, help="Where the people are, such as Asia/Shanghai; days begin there."
)
@click.option("--min-users", type=int, default=1, show_default=True, help="Drop points in cells that fewer users visit.")
@click.option("--mapper", default="grid", show_default=True, help="Spatial mapper.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Option of the mapper, such as size=500.")
@click.option("--step", default="1h", show_default=True, help="Duration of a step; or event: every point is a step.")
@click.option("--period", default="week", show_default=True, help="week, day, or a number of steps.")
@click.option("--coverage", type=float, default=0.5, show_default=True, help="Least share of steps with a point.")
@click.option("--day-coverage", type=float, default=0.0, show_default=True, help="The same for each day.")
@click.option("--gaps", default="hold", show_default=True, help="Steps without a point: hold, nearest or drop.")
@click.option("--max-gap", type=int, help="Steps a place is held for at most.")
@click.option("--min-sequences", type=int, default=1, show_default=True, help="Drop users with fewer.")
@click.option("--split", default="user", show_default=True, help="By user or by time.")
@click.option("--shares", default="0.7,0.1,0.2", callback=_shares, show_default=True, help="Train, validation, test.")
@click.option("--clusters", type=int, default=8, show_default=True, help="Movement clusters.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--name", help="Name of the dataset.")
@click.option("--licence", default="not stated", help="Licence of the data, for the record.")
@worker_options
@force_option
@json_option
def prepare(files: tuple[str, ...], pairs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Make a dataset of FILES: tables with a row a point, in files, folders or globs, or a published format.

    \b
    mobtk data prepare pings.csv -o my-city --user uid --time t --time-unit s --lat y --lon x
    mobtk data prepare 'Geolife Trajectories 1.3/Data' -o geolife --timezone Asia/Shanghai
    mobtk data prepare checkins.parquet -o visits --step event --period 16 --split time --mapper places
    """
    from mobtk.data.prepare import prepare as prepare_files

    dataset = prepare_files(list(files), mapper_options=settings(pairs), **options)
    _show(dataset, as_json)


@data.command()
@json_option
def formats(as_json: bool) -> None:
    """The forms of published data that prepare and check know by themselves."""
    from mobtk.data.sources import FORMATS

    text = "\n".join(f"{name:<10}{form.title}" + (f"\n{'':<10}{form.note}" if form.note else "") for name, form in FORMATS.items())
    show({name: msgspec.to_builtins(form) for name, form in FORMATS.items()}, as_json, text)


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


@data.command()
@click.argument("files", nargs=-1, required=True)
@reading_options
@click.option("--timezone", help="Where the people are; found by position.")
@click.option("--rows", type=int, default=3_000_000, show_default=True, help="How many rows to read.")
@click.option("-o", "--out", metavar="FILE.html", help="Write a page with a map and histograms, too.")
@json_option
def check(files: tuple[str, ...], timezone: str | None, rows: int, out: str | None, as_json: bool, **reading: Any) -> None:
    """What are these FILES? Columns, units, zone, faults, and the command that prepares them."""
    from mobtk.data.check import check as look
    from mobtk.data.sources import Reading

    report, points = look(list(files), reading=Reading(**reading), timezone=timezone, rows=rows)
    if out is not None:
        from mobtk.report.data import check_page

        check_page(report, points, out)
    show(msgspec.to_builtins(report), as_json, report.text() + (f"\n\npage: {out}" if out else ""))
