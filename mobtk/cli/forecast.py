"""``mobtk forecast``."""

import click

from mobtk.cli import force_option, json_option, show


@click.command()
@click.argument("run")
@click.option("--at", metavar="TIME", help="First moment foretold, local time; end: after the field; by default, as late as "
              "the truth is known.")  # fmt: skip
@click.option("--nodes", metavar="A,B,...", help="Names of nodes; by default all in the table, three in the picture.")
@click.option("-o", "--out", metavar="FILE", help="Write the table: .csv or .parquet.")
@click.option("--picture", metavar="FILE.png", help="Draw history, truth and forecast.")
@click.option("--data", metavar="FIELD", help="Another field of the same nodes.")
@force_option
@json_option
def forecast(
    run: str,
    at: str | None,
    nodes: str | None,
    out: str | None,
    picture: str | None,
    data: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """What RUN foretells from one moment on: a table, and a picture of history, truth and forecast."""
    from pathlib import Path

    from mobtk.errors import BadInput
    from mobtk.forecasting import forecast as foretell
    from mobtk.report.figures import forecasts
    from mobtk.storage import check_new_file, new_file, write_table

    for file, endings in ((out, (".csv", ".parquet")), (picture, (".png", ".svg", ".pdf"))):
        if file is not None:
            if not file.endswith(endings):
                raise BadInput(f"{file} is none of {', '.join(endings)}; give it such an ending")
            check_new_file(file, replace)
    table = foretell(run, at=at, nodes=[n.strip() for n in nodes.split(",")] if nodes else None, data=data)
    future = table[table["forecast"].notna()]
    if out is not None:
        write_table(out, table)
    if picture is not None:
        with new_file(picture) as draft:
            forecasts(table).savefig(draft, format=Path(picture).suffix[1:], dpi=150, bbox_inches="tight")
    shown = future.drop(columns="history").head(24)
    left = len(future) - len(shown)
    text = shown.to_string(index=False, float_format="{:.4g}".format) + (f"\n... {left:,} rows more" if left > 0 else "")
    files = "".join(f"\n{file}" for file in (out, picture) if file)
    show({"forecast": future.assign(time=future["time"].astype(str)).to_dict("records")}, as_json, text + files)
