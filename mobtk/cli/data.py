"""``mobtk data``: datasets."""

from typing import Any

import click
import msgspec

from mobtk.cli import duration, force_option, json_option, settings, show
from mobtk.cli.field import check_field, field, show_field
from mobtk.errors import BadInput


@click.group()
def data() -> None:
    """Make datasets of points, trajectories and fields; look at them."""


data.add_command(field)


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
    click.option(
        "--time-format", metavar="FORMAT", help="How times in words are written, such as '%d/%m/%Y %H:%M'; ISO 8601."
    ),
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
    click.option("--trim", callback=duration, default="0s", show_default=True, help="Drop so much at both ends of a track."),
    click.option("--track-gap", callback=duration, default="1h", show_default=True, help="What ends a track."),
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
@click.option("--page", metavar="FILE.html", help="Write the card as a page, too, with the funnel drawn and a map.")
@worker_options
@force_option
@json_option
def prepare(files: tuple[str, ...], pairs: tuple[str, ...], page: str | None, as_json: bool, **options: Any) -> None:
    """Make a dataset of FILES: tables with a row a point, in files, folders or globs, or a published format.

    \b
    mobtk data prepare pings.csv -o my-city --user uid --time t --time-unit s --lat y --lon x
    mobtk data prepare 'Geolife Trajectories 1.3/Data' -o geolife --timezone Asia/Shanghai
    mobtk data prepare checkins.parquet -o visits --step event --period 16 --split time --mapper places
    """
    from mobtk.data.prepare import prepare as prepare_files

    _check_page(page, options["replace"])
    dataset = prepare_files(list(files), mapper_options=settings(pairs), **options)
    _show(dataset, as_json, page)


@data.command()
@json_option
def formats(as_json: bool) -> None:
    """The forms of published data that prepare and check know by themselves."""
    from mobtk.data.formats import FORMATS

    text = "\n".join(
        f"{name:<10}{form.title}" + (f"\n{'':<10}{form.note}" if form.note else "") for name, form in FORMATS.items()
    )
    show({name: msgspec.to_builtins(form) for name, form in FORMATS.items()}, as_json, text)


@data.command()
@click.argument("dataset")
@click.option("-o", "--out", metavar="FILE.html", help="Write the card as a page, with the funnel drawn and a map.")
@force_option
@json_option
def info(dataset: str, out: str | None, replace: bool, as_json: bool) -> None:
    """The card of a DATASET, field or trajectories: what it holds, where it is from, what its preparation lost."""
    from mobtk.data.field import Field
    from mobtk.data.kinds import open_dataset
    from mobtk.data.trajectories import Trajectories

    _check_page(out, replace)
    found = open_dataset(dataset)
    if out is not None and isinstance(found, Field | Trajectories):
        raise BadInput(f"a page is drawn of sequences, and {dataset} holds others; leave -o out")
    if isinstance(found, Field):
        show_field(found, as_json)
    elif isinstance(found, Trajectories):
        _show_trajectories(found, as_json)
    else:
        _show(found, as_json, out)


@data.command()
@click.option("-o", "--out", required=True, help="Folder of the dataset, or the file of points.")
@click.option("--weeks", type=int, default=10_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--mapper", default="grid", show_default=True, help="Spatial mapper.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Option of the mapper, such as size=500.")
@click.option("--points", is_flag=True, help="Write a Parquet file of noisy points instead, as they would be measured.")
@click.option("--every", type=float, default=60.0, show_default=True, help="Seconds between the points of a person.")
@click.option("--noise", type=float, default=20.0, show_default=True, help="Metres that a point is off.")
@click.option("--order", default="user", show_default=True, help="Of the points: user or time.")
@force_option
@json_option
def city(
    out: str, weeks: int, seed: int, mapper: str, pairs: tuple[str, ...], points: bool, every: float, noise: float,
    order: str, replace: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a dataset of the built-in city, or a file of points."""
    from mobtk.data.city import prepare_city, write_points

    if points:
        rows = write_points(out, weeks=weeks, every=every, noise=noise, seed=seed, order=order, replace=replace)
        show({"path": out, "points": rows}, as_json, f"{out}: {rows:,} points of {-(-weeks // 4):,} people (Asia/Shanghai)")
        return
    options = settings(pairs)
    dataset = prepare_city(out, weeks=weeks, seed=seed, mapper=mapper, mapper_options=options, replace=replace)
    _show(dataset, as_json)


@data.command()
@click.argument("files", nargs=-1, required=True)
@reading_options
@click.option("--timezone", help="Where the people are; found by position.")
@click.option("--rows", type=int, default=3_000_000, show_default=True, help="How many rows to read.")
@click.option("-o", "--out", metavar="FILE.html", help="Write a page with a map and histograms, too.")
@click.option("--field", "is_field", is_flag=True, help="The file holds values over time and place, not points.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="With --field: options of data field, as step=5min."
)
@force_option
@json_option
def check(
    files: tuple[str, ...],
    timezone: str | None,
    rows: int,
    out: str | None,
    is_field: bool,
    pairs: tuple[str, ...],
    replace: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """What are these FILES? Columns, units, zone, faults, and the command that prepares them; or is a field in order?"""
    from mobtk.data.check import check as look
    from mobtk.data.formats import Reading
    from mobtk.data.kinds import kind_of

    if is_field or kind_of(files[0]) == "field":
        check_field(files, settings(pairs), as_json)
        return
    if kind_of(files[0]) == "trajectories":
        raise BadInput(f"{files[0]} holds trajectories already; look at them with: mobtk data info {files[0]}")
    _check_page(out, replace)
    report, points = look(list(files), reading=Reading(**reading), timezone=timezone, rows=rows)
    if out is not None:
        from mobtk.report.data import check_page

        check_page(report, points, out)
    show(msgspec.to_builtins(report), as_json, report.text() + (f"\n\npage: {out}" if out else ""))


@data.command()
@click.argument("dataset")
@click.option("-o", "--out", required=True, help="Folder of the copy.")
@click.option("--users", type=int, default=8, show_default=True, help="Made-up people.")
@click.option("--times", type=int, default=1, show_default=True, help="Sequences of each, all alike.")
@click.option("--seed", type=int, default=0, show_default=True)
@force_option
@json_option
def canaries(dataset: str, out: str, users: int, times: int, seed: int, replace: bool, as_json: bool) -> None:
    """Plant made-up people in the training split of a DATASET, to audit later whether a model remembers them."""
    from mobtk.data.canaries import plant
    from mobtk.data.dataset import Dataset

    _show(plant(Dataset(dataset), out, users=users, times=times, seed=seed, replace=replace), as_json)


@data.command()
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--out", required=True, help="Folder of the tables.")
@reading_options
@rule_options
@click.option("--method", default="distance", show_default=True, help="How stays are found: distance, speed or cluster.")
@click.option("--metres", type=float, default=100.0, show_default=True, help="Reach of a stay.")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Least duration of a stay.")
@click.option("--gap", type=float, default=15.0, show_default=True, help="Minutes without a point that end a stay.")
@click.option("--kmh", type=float, default=2.0, show_default=True, help="Speed below which one stays, for speed.")
@click.option("--cut/--no-cut", default=True, show_default=True, help="Whether a stay that a gap cuts off counts.")
@click.option("--place-metres", type=float, default=100.0, show_default=True, help="Reach of a place, which joins stays.")
@click.option("--timezone", default="UTC", show_default=True, help="Where the people are, for home and work.")
@worker_options
@force_option
@json_option
def visits(
    files: tuple[str, ...], out: str, replace: bool, workers: int, scheduler: str | None, as_json: bool, **options: Any
) -> None:
    """Stays, trips, places, and home and work of the people in FILES of points."""
    from mobtk.data.clean import Rules
    from mobtk.data.formats import Reading
    from mobtk.data.funnel import Loss, table
    from mobtk.data.visits import Staying
    from mobtk.data.visits import visits as find_visits

    told = find_visits(
        list(files), out, reading=_some(Reading, options), rules=_some(Rules, options), staying=_some(Staying, options),
        place_metres=options["place_metres"], timezone=options["timezone"], replace=replace,
        workers=workers, scheduler=scheduler,
    )  # fmt: skip
    counts = ", ".join(f"{n:,} {name}" for name, n in told["counts"].items())
    show(told, as_json, f"{out}: {counts}\n\n{table(msgspec.convert(told['funnel'], list[Loss]))}")


@data.command()
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--out", required=True, help="Folder of the trajectories.")
@reading_options
@rule_options
@click.option("--gap", callback=duration, default="10min", show_default=True, help="What ends a trajectory.")
@click.option("--every", callback=duration, default="0s", show_default=True, help="Keep the first point of each so long.")
@click.option("--min-points", type=int, default=8, show_default=True, help="Drop shorter ones.")
@click.option("--max-points", type=int, default=1024, show_default=True, help="Cut longer ones.")
@click.option("--timezone", default="UTC", show_default=True, help="Where the people are, such as Asia/Shanghai.")
@click.option("--split", default="user", show_default=True, help="By user or by time.")
@click.option("--shares", default="0.7,0.1,0.2", callback=_shares, show_default=True, help="Train, validation, test.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--name", help="Name of the dataset.")
@click.option("--licence", default="not stated", help="Licence of the data, for the record.")
@worker_options
@force_option
@json_option
def trajectories(files: tuple[str, ...], out: str, as_json: bool, **options: Any) -> None:
    """Trajectories of FILES: points as they were measured, in the order of time, cut where there is none for long.

    \b
    mobtk data trajectories cabs.parquet -o cabs --timezone America/Los_Angeles --gap 5min --max-speed 150
    """
    from mobtk.data.clean import Rules
    from mobtk.data.formats import Reading
    from mobtk.data.prepare_trajectories import Cutting, make_trajectories

    made = [_some(kind, options) for kind in (Reading, Rules, Cutting)]
    rest = ("timezone", "split", "shares", "seed", "name", "licence", "replace", "workers", "scheduler")
    reading, rules, cutting = made
    found = make_trajectories(
        list(files), out, reading=reading, rules=rules, cutting=cutting, **{k: options[k] for k in rest}
    )
    _show_trajectories(found, as_json)


@data.command()
@click.argument("dataset")
@click.option("-o", "--out", required=True, help="Folder of the new dataset.")
@click.option("--users", type=int, help="How many.")
@click.option("--share", type=float, help="What share of all.")
@click.option("--seed", type=int, default=0, show_default=True)
@force_option
@json_option
def sample(dataset: str, out: str, as_json: bool, **options: Any) -> None:
    """Some users of a DATASET, drawn at random, with all their sequences."""
    from mobtk.data import tools
    from mobtk.data.dataset import Dataset

    _show(tools.sample(Dataset(dataset), out, **options), as_json)


split_options = _together(
    click.option("--shares", default="0.7,0.1,0.2", callback=_shares, show_default=True, help="Train, validation, test."),
    click.option("--seed", type=int, default=0, show_default=True),
)


@data.command()
@click.argument("dataset")
@click.option("-o", "--out", required=True, help="Folder of the new dataset.")
@click.option("--by", "split", default="user", show_default=True, help="user or time.")
@split_options
@force_option
@json_option
def split(dataset: str, out: str, as_json: bool, **options: Any) -> None:
    """The sequences of a DATASET, split anew."""
    from mobtk.data import tools
    from mobtk.data.dataset import Dataset

    _show(tools.resplit(Dataset(dataset), out, **options), as_json)


@data.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("-o", "--out", required=True, help="Folder of the new dataset.")
@click.option("--prefix", is_flag=True, help="Users of one name in two datasets are two people.")
@click.option("--by", "split", default="user", show_default=True, help="user or time.")
@split_options
@force_option
@json_option
def merge(datasets: tuple[str, ...], out: str, as_json: bool, **options: Any) -> None:
    """Several DATASETS of one mapper and step as one."""
    from mobtk.data import tools
    from mobtk.data.dataset import Dataset

    _show(tools.merge([Dataset(d) for d in datasets], out, **options), as_json)


@data.command()
@click.argument("dataset")
@click.option("-o", "--out", required=True, help="File: .parquet (GeoParquet), .gpkg, .geojson or .csv.")
@click.option("--as", "what", default="points", show_default=True, help="points, lines, stays, or od: moves between cells.")
@click.option("--level", type=int, default=0, show_default=True, help="Of the cells; 0 is the finest.")
@force_option
@json_option
def export(dataset: str, out: str, as_json: bool, **options: Any) -> None:
    """A DATASET for other programs, with its geometry."""
    from mobtk.data.dataset import Dataset
    from mobtk.data.export import export as write

    rows = write(Dataset(dataset), out, **options)
    show({"path": out, "rows": rows, "what": options["what"]}, as_json, f"{out}: {rows:,} rows ({options['what']})")


@data.command()
@click.argument("dataset")
@click.option("--fingerprint", "sent", help="What the sender's `mobtk data info` printed.")
@json_option
def validate(dataset: str, sent: str | None, as_json: bool) -> None:
    """Whether a DATASET that somebody sent is sound, complete and as it was written."""
    from mobtk.data.tools import validate as look

    findings = look(dataset, sent=sent)
    bad = [f for f in findings if not f.sound]
    lines = [f"{'ok ' if f.sound else 'NOT'}  {f.what}  ({f.found})" for f in findings]
    verdict = f"{dataset} is sound" if not bad else f"{dataset} is not sound: {len(bad)} of {len(findings)} checks fail"
    show({"sound": not bad, "findings": msgspec.to_builtins(findings)}, as_json, "\n".join([*lines, "", verdict]))
    if bad:
        raise SystemExit(2)


@data.command("list")
@json_option
def list_public(as_json: bool) -> None:
    """Public datasets: what they are, their licence, and how to get them."""
    from mobtk.data.fetch import PUBLIC

    lines = []
    for name, p in PUBLIC.items():
        way = f"mobtk data fetch {name}" if p.url else p.how
        lines += [
            f"{name}: {p.title}",
            f"    licence  {p.licence} ({p.terms})",
            f"    get it   {way}",
            f"    then     {p.then.format('.')}",
        ]
    show({name: msgspec.to_builtins(p) for name, p in PUBLIC.items()}, as_json, "\n".join(lines))


@data.command()
@click.argument("name")
@click.option("-o", "--out", help="Folder; the name by default.")
@click.option("--agree", is_flag=True, help="You have read the licence and agree to it.")
@json_option
def fetch(name: str, out: str | None, agree: bool, as_json: bool) -> None:
    """Fetch the public dataset NAME; an interrupted download goes on where it was."""
    from mobtk.data.fetch import fetch as get

    then = get(name, out or name, agree=agree)
    show({"path": out or name, "then": then}, as_json, f"{out or name} is there; prepare it with:\n{then}")


def _some(kind: Any, options: dict[str, Any]) -> Any:
    """A struct of those options that are its fields."""
    return kind(**{f: options[f] for f in kind.__struct_fields__ if f in options})


def _check_page(out: str | None, replace: bool) -> None:
    if out is not None:
        from mobtk.report.page import check_page

        check_page(out, replace)


def _show(dataset: Any, as_json: bool, page: str | None = None) -> None:
    from mobtk.data.funnel import table
    from mobtk.data.tools import card

    if page is not None:
        from mobtk.report.data import dataset_page

        dataset_page(dataset, page)
    told = card(dataset)
    s, w, n, e = told["area"]
    people = ", ".join(f"{rows:,} {part} ({told['users_by_split'][part]:,} users)" for part, rows in told["split"].items())
    observed = f"; {told['steps_observed']:.0%} of steps observed" if "steps_observed" in told else ""
    text = (
        f"{told['path']}: {told['name']} (licence: {told['licence']})\n"
        f"{told['rows']:,} sequences of {told['steps']} steps of {told['step']}: {people}\n"
        f"from {told['from'].replace('T', ' ')} to {told['to'].replace('T', ' ')} local time; latitude {s:.3f} to {n:.3f}, "
        f"longitude {w:.3f} to {e:.3f}\n"
        f"mapper {told['mapper']}, cells by level: {', '.join(f'{c:,}' for c in told['cells'])}{observed}; "
        f"{told['steps_in_the_same_cell']:.0%} in the cell of the step before\n"
        f"traits: {', '.join(told['trait_sizes'])}\n"
        f"made by mobtk {told['mobtk']} of {', '.join(told['sources'][:3])}{' ...' if len(told['sources']) > 3 else ''}\n"
        f"fingerprint {told['fingerprint']}\n\n{table(dataset.info.funnel)}"
    )
    show(told, as_json, text)


def _show_trajectories(found: Any, as_json: bool) -> None:
    from mobtk.data.funnel import table
    from mobtk.data.trajectories import card

    told = card(found)
    (s, w), (n, e) = told["area"]
    split = ", ".join(f"{rows:,} {part}" for part, rows in told["split"].items())
    text = (
        f"{told['path']}: {told['name']} (licence: {told['licence']})\n"
        f"{told['rows']:,} trajectories of {told['users']:,} users, {told['points']:,} points: {split}\n"
        f"from {told['from']} to {told['to']} UTC ({told['timezone']}); latitude {s:.3f} to {n:.3f}, longitude {w:.3f} to "
        f"{e:.3f}\n"
        f"a trajectory: {told['points_each']:.0f} points, {told['minutes_each']:.1f} minutes (medians); a step: "
        f"{told['seconds_a_step']:.1f} s, {told['metres_a_step']:.1f} m (medians)\n"
        f"made by mobtk {told['mobtk']} of {', '.join(told['sources'][:3])}{' ...' if len(told['sources']) > 3 else ''}\n"
        f"fingerprint {told['fingerprint']}\n\n{table(found.info.funnel)}"
    )
    show(told, as_json, text)
