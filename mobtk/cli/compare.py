"""``mobtk compare``."""

from typing import Any

import click

from mobtk.cli import json_option, literal, settings, show


@click.command()
@click.argument("recipe", default="default")
@click.option(
    "--vary",
    "pairs",
    multiple=True,
    required=True,
    metavar="KEY=A,B",
    help="A part or setting, and its values; of lists, a list.",
)
@click.option("--match", type=click.Choice(["params", "compute", "none"]), default="params", show_default=True,
              help="What is made equal, by the width of the models.")  # fmt: skip
@click.option("--seeds", type=int, default=3, show_default=True, help="Trainings of each combination.")
@click.option(
    "-o", "--out", default="comparison", show_default=True, help="Folder; an interrupted comparison goes on there."
)
@click.option("--data", metavar="DATASET", help="A dataset folder; by default the built-in data of the task.")
@click.option("--weeks", type=int, default=10_000, show_default=True, help="Size of the built-in data.")
@click.option("--set", "changed", multiple=True, metavar="KEY=VALUE", help="Any setting that all combinations have.")
@click.option("--workers", type=int, default=0, help="Processes that share the work, by Dask.")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler whose workers do it; they see the same files.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def compare(recipe: str, pairs: tuple[str, ...], out: str, changed: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Train and score every valid combination of parts, at equal size, over seeds; a table and a picture.

    \b
    mobtk compare --vary backbone=transformer,mamba,gpt2 --vary tokenizer=rvq,cells --match params --seeds 3
    mobtk compare forecaster --data my-field --vary backbone=transformer,mamba --set forecast.horizon=24
    """
    from mobtk import comparing
    from mobtk.training import Stopped

    try:
        result = comparing.compare(recipe, _varied(pairs), out=out, changes=settings(changed), **options)
    except Stopped as stop:
        click.echo(f"mobtk: {stop}; the same command goes on there", err=True)
        raise SystemExit(130) from None
    show(result, as_json, f"{comparing.table(result)}\npicture: {out}/comparison.png")


def _varied(pairs: tuple[str, ...]) -> dict[str, list[Any]]:
    """What ``--vary backbone=transformer,mamba`` says."""
    from mobtk.errors import BadInput

    found: dict[str, list[Any]] = {}
    for pair in pairs:
        key, equals, values = pair.partition("=")
        if not equals or not key or not values:
            raise BadInput(f"--vary {pair!r} is not of the form key=one,other, such as --vary backbone=transformer,mamba")
        many = literal(values)  # [[1, 7], [1, 28]]: values that are lists
        found[key.strip()] = many if isinstance(many, list) else [literal(value.strip()) for value in values.split(",")]
    return found
