"""``mobtk animate``."""

import click

from mobtk.cli import force_option, json_option, show


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("-o", "--out", default="week.html", show_default=True, help="A page (.html) or a moving picture (.gif).")
@click.option("--person", type=int, default=0, show_default=True, help="Whose traits: a row of the test split.")
@click.option("--drawn", type=int, default=32, show_default=True, help="Continuations of each frame.")
@click.option("--seed", type=int, default=0, show_default=True)
@force_option
@json_option
def animate(runs: tuple[str, ...], out: str, person: int, drawn: int, seed: int, replace: bool, as_json: bool) -> None:
    """A person's week as it is decided, pass by pass, in RUNS side by side: coarse to fine, hour by hour,
    or masked.

    \b
    mobtk animate runs/coarse runs/hourly -o week.html
    """
    from mobtk.report import animation
    from mobtk.storage import check_new_file

    check_new_file(out, replace)
    animation.animate(runs, out, person=person, seed=seed, drawn=drawn)
    show({"file": out}, as_json, f"{out}: open it in a browser")
