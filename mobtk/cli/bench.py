"""``mobtk bench``."""

import click

from mobtk.cli import json_option, show


@click.command()
@click.argument(
    "what",
    type=click.Choice(["metrics", "preparation", "tokenizer", "generation", "scan", "forecasting", "points"]),
    default="metrics",
)
@click.option(
    "--weeks",
    type=click.IntRange(min=2),
    help="10,000; 100 (preparation), 256 (tokenizer), 64 (generation), 16 (scan), 8 (forecasting), 64 (points).",
)
@json_option
def bench(what: str, weeks: int | None, as_json: bool) -> None:
    """Measure speed on this machine, in one thread, per second of processor time.

    metrics: weeks per core-second for the four individual metrics. preparation: rows per core-second from files of
    points, 10,080 a week, beside pandas. tokenizer and generation: at M-STAR's reference
    sizes (470 tokens a week, 4096 codes, width 256), with fresh weights. scan: that of Mamba, in every way this
    machine has, with --weeks sequences at once. forecasting: a training step of --weeks windows, its memory, and a
    forecast of each recipe that forecasts, 170 nodes, 96 steps from 96. points: those that each recipe of trajectories
    learns and tells, --weeks trajectories at once.
    """
    from mobtk import benchmarks

    measure = getattr(benchmarks, what)
    result = measure() if weeks is None else measure(weeks)
    show(result, as_json, "\n".join(f"{key:<48}{value:>14,.{1 if value >= 10 else 3}f}" for key, value in result.items()))
