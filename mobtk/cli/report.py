"""``mobtk report``."""

import click

from mobtk.cli import force_option, json_option, show


@click.command()
@click.argument("what")
@click.option("-o", "--out", default="report.html", show_default=True, help="The page, a single file that needs no network.")
@force_option
@json_option
def report(what: str, out: str, replace: bool, as_json: bool) -> None:
    """A page about WHAT, a dataset or a run that was evaluated.

    Of a generator: maps, flows, times of the day and distributions, real beside generated; scores with their floor and
    baselines; the audit, the metric cards, the recipe and the commands that made it. Of a forecaster: errors by step and by
    node, on the map, history and forecast. Of a completer: errors by mask.
    """
    from pathlib import Path

    from mobtk.data.dataset import Dataset
    from mobtk.report.data import dataset_page
    from mobtk.report.page import check_page
    from mobtk.report.run import run_page

    check_page(out, replace)
    if (Path(what) / "recipe.toml").is_file():
        run_page(what, out)
    else:
        dataset_page(Dataset(what), out)
    show({"page": out}, as_json, f"{out}: open it in a browser")
