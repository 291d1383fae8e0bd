"""``mobtk generate``."""

from typing import Any

import click

from mobtk.cli import again, force_option, json_option, show


@click.command()
@click.argument("run")
@click.option("-n", type=int, help="How many people; with --traits, as many as the file has rows by default.")
@click.option("-o", "--out", help="The Parquet file; generated.parquet in the run's folder by default.")
@click.option("--temperature", type=float, help="Below 1 is more regular. This and the next four: as in the recipe.")
@click.option("--top-k", type=int, help="Draw among the k likeliest tokens only.")
@click.option("--top-p", type=float, help="Draw among the likeliest tokens of this total probability.")
@click.option("--min-p", type=float, help="Draw among tokens at least this many times as likely as the likeliest.")
@click.option(
    "--coupling", type=int, help="Steps within which parallel draws agree where they can; a day by default, 0 for none."
)
@click.option("--traits", metavar="FILE", help="CSV or Parquet of traits; drawn like the training population's otherwise.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--batch", type=int, help="People generated at once; what suits the machine by default.")
@click.option("--precision", help="float32, bfloat16 or auto; as in the recipe.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--resume", is_flag=True, help="Go on with the shards of an earlier, unfinished call.")
@force_option
@json_option
def generate(run: str, n: int | None, out: str | None, as_json: bool, **options: Any) -> None:
    """Generate a synthetic population from RUN, streamed to a Parquet file."""
    from mobtk.generation import generate as generate_people

    try:
        file = generate_people(run, n, out, **options)
    except KeyboardInterrupt:
        click.echo("mobtk: interrupted; the finished shards are kept: give the same command with --resume", err=True)
        raise SystemExit(130) from None
    show({"file": str(file)}, as_json, f"{file}\nnext: {again()} evaluate {run}" + (f" {file}" if out else ""))
