"""``mobtk demo``."""

import click

from mobtk.cli import force_option, json_option, show


@click.command()
@click.option("-o", "--out", default="mobtk-demo", show_default=True, help="Folder of the run.")
@click.option("-n", type=int, default=2000, show_default=True, help="Weeks to generate.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the training and the generation.")
@force_option
@json_option
def demo(out: str, n: int, seed: int, replace: bool, as_json: bool) -> None:
    """Build, train, generate and evaluate on the built-in city, in a few minutes on two cores."""
    import torch

    from mobtk.demo import demo as run_demo

    # a model so small gains little from a second thread, and loses much by it on a machine with other things to do
    torch.set_num_threads(1)
    result, text = run_demo(out, n, seed=seed, replace=replace)
    show(result, as_json, text)
