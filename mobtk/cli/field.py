"""``mobtk data field``, and the cards of fields."""

from typing import TYPE_CHECKING, Any

import click

from mobtk.cli import force_option, json_option, show

if TYPE_CHECKING:
    from mobtk.data.field import Field


def _parts(kind: type) -> Any:
    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        try:
            return None if value is None else tuple(kind(part.strip()) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"wants numbers with commas between, not {value!r}") from None

    return read


@click.command()
@click.argument("source")
@click.option("-o", "--out", required=True, help="Folder of the field.")
@click.option("--key", help="Name of the array in an .npz or .h5.")
@click.option("--time", help="Column of moments of a table.")
@click.option("--node", help="Column that says which node a row is of; without one a table has a column a node.")
@click.option("--value", callback=_parts(str), metavar="A,B,...", help="Columns of values; all numbers by default.")
@click.option("--start", help="Local time of the first step, for arrays that do not say.")
@click.option("--step", help="Duration of a step, such as 5min, for arrays that do not say.")
@click.option("--resample", metavar="DURATION", help="Means over such steps instead.")
@click.option("--missing", callback=_parts(float), metavar="X,Y,...", help="Numbers that mean: not measured.")
@click.option("--positions", metavar="FILE", help="Table of name, lat and lon of the nodes.")
@click.option("--graph", default="none", show_default=True, help="none, given, distance or nearest.")
@click.option("--edges", help="Of a given graph: an array of the source, or a file.")
@click.option("--neighbours", type=int, default=8, show_default=True, help="Of each node, for --graph nearest.")
@click.option("--reach", type=float, metavar="METRES", help="Up to which nodes are linked, for --graph distance.")
@click.option("--most", type=click.IntRange(min=1), help="Keep so many nodes, those with the largest mean.")
@click.option("--level", type=int, default=0, show_default=True, help="Of the cells of a dataset; 0 is the finest.")
@click.option(
    "--shares", default="0.6,0.2,0.2", callback=_parts(float), show_default=True, help="Training, validation, test."
)
@click.option("--cuts", callback=_parts(int), metavar="A,B,C", help="Steps at which the splits end instead.")
@click.option("--name", help="Name of the field.")
@click.option("--licence", default="not stated", help="Licence of the data, for the record.")
@force_option
@json_option
def field(
    source: str, as_json: bool, value: tuple[str, ...] | None, missing: tuple[float, ...] | None, **options: Any
) -> None:
    """Make a field, values over time and place, of SOURCE: an array, a table, or a dataset of sequences.

    \b
    mobtk data field los_loop.npz -o los --step 5min --start 2012-03-01 --graph given --edges adj
    mobtk data field counts.csv -o counts --node sensor --value flow,speed --missing 0
    mobtk data field my-city -o flows --graph nearest      how many people are, come and leave, cell by cell
    """
    from mobtk.data.prepare_field import make_field

    show_field(make_field(source, value=value or (), missing=missing or (), **options), as_json)


def show_field(made: "Field", as_json: bool) -> None:
    """Print the card of a field."""
    from mobtk.data.field import card

    told = card(made)
    show(told, as_json, _text(told))


def _text(told: dict[str, Any]) -> str:
    edges = "no graph" if told["edges"] is None else f"{told['edges']:,} edges"
    parts = ", ".join(f"{n:,} {name}" for name, n in told["split"].items())
    text = (
        f"{told['path']}: {told['name']} (licence: {told['licence']})\n"
        f"{told['steps']:,} steps of {told['step']}: {parts}\n"
        f"from {told['from']} to {told['to']} local time; {told['missing']:.1%} missing\n"
        f"{told['nodes']:,} nodes{'' if told['positions'] else ' without positions'}, {edges}; "
        f"channels {', '.join(told['channels'])}\n"
        f"made by mobtk {told['mobtk']} of {', '.join(told['sources'])}\nfingerprint {told['fingerprint']}"
    )
    return "\n".join([text, *told["notes"]])


def check_field(files: tuple[str, ...], options: dict[str, Any], as_json: bool) -> None:
    """Read a field, or what would be one with these options of ``mobtk data field``, and tell what is odd about it."""
    import tempfile
    from pathlib import Path

    from mobtk.data.field import Field, card
    from mobtk.data.kinds import kind_of
    from mobtk.data.prepare_field import make_field
    from mobtk.options import call
    from mobtk.storage import to_json

    cards, texts = [], []
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            made = (
                Field(file)
                if kind_of(file) == "field"
                else call("a field", make_field, (file, Path(folder) / "field"), options)
            )
            cards.append({**card(made), "path": file})
            texts.append(_text(cards[-1]))
    click.echo(to_json(cards[0] if len(cards) == 1 else cards) if as_json else "\n\n".join(texts))
