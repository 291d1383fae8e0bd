"""``mobtk predict`` and ``mobtk complete``."""

from typing import TYPE_CHECKING

import click

from mobtk.cli import duration, force_option, json_option, show

if TYPE_CHECKING:
    import pandas as pd

out_option = click.option("-o", "--out", metavar="FILE", help="Write the table: .csv or .parquet.")
split_option = click.option("--split", help="train, valid or test; all by default.")
samples_option = click.option("--samples", type=int, default=20, show_default=True, help="Drawn to say how sure it is.")
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Of the samples.")


@click.command()
@click.argument("run")
@click.argument("data")
@click.option("-n", type=int, default=12, show_default=True, help="Points after the last one of each trajectory.")
@click.option(
    "--every", callback=duration, metavar="TIME", help="Between them, such as 5s; by default the model tells that, too."
)
@split_option
@samples_option
@seed_option
@out_option
@force_option
@json_option
def predict(
    run: str,
    data: str,
    n: int,
    every: float | None,
    split: str | None,
    samples: int,
    seed: int,
    out: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """The next points of the trajectories in folder DATA, as RUN foretells them.

    metres_80: four of five samples lie within so many metres of a point.
    """
    from mobtk.completing import predict as foretell

    _check_out(out, replace)
    table = foretell(run, data, n=n, every=every, split=split, samples=samples, seed=seed)
    _show(table, out, as_json)


@click.command()
@click.argument("run")
@click.argument("data")
@click.option(
    "--every", callback=duration, metavar="TIME", required=True, help="Where points are further apart, more are put between."
)
@split_option
@samples_option
@seed_option
@out_option
@force_option
@json_option
def complete(
    run: str,
    data: str,
    every: float,
    split: str | None,
    samples: int,
    seed: int,
    out: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """The trajectories in folder DATA with their gaps filled, as RUN tells them.

    metres_80: four of five samples lie within so many metres of a filled point.
    """
    from mobtk.completing import complete as fill

    _check_out(out, replace)
    table = fill(run, data, every=every, split=split, samples=samples, seed=seed)
    _show(table, out, as_json)


def _check_out(out: str | None, replace: bool) -> None:
    from mobtk.errors import BadInput
    from mobtk.storage import check_new_file

    if out is not None:
        if not out.endswith((".csv", ".parquet")):
            raise BadInput(f"{out} is none of .csv, .parquet; give it such an ending")
        check_new_file(out, replace)


def _show(table: "pd.DataFrame", out: str | None, as_json: bool) -> None:
    from mobtk.storage import write_table

    if out is not None:
        write_table(out, table)
    told = table[table["filled"]] if "filled" in table else table
    shown = told.head(24).assign(time=told["time"].head(24).dt.strftime("%Y-%m-%d %H:%M:%S"))
    left = len(told) - len(shown)
    text = shown.to_string(index=False, float_format="{:.6g}".format) + (f"\n... {left:,} points more" if left > 0 else "")
    records = table.assign(time=table["time"].astype(str)).to_dict("records") if as_json else []
    show({"points": records}, as_json, text + (f"\n{out}" if out else ""))
