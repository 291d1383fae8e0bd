"""``mobtk experiment``."""

import click

from mobtk.cli import json_option, show


@click.group()
def experiment() -> None:
    """Named questions, each with a verdict."""


@experiment.command("list")
@json_option
def list_(as_json: bool) -> None:
    """The experiments that are installed."""
    from mobtk.plugins import registry
    from mobtk.tables import aligned

    rows = [{"name": f"{e.package}/{e.name}", "summary": e.summary} for e in registry().entries("experiment")]
    lines = aligned([(row["name"], row["summary"]) for row in rows], left=2)
    show(
        rows,
        as_json,
        "\n".join(lines)
        or "no experiment is installed; those of the papers come with their plugins: pip install -r plugins/all.txt",
    )


@experiment.command("show")
@click.argument("name")
@click.option("--size", help="smoke, cpu or full; by default the largest that was run.")
@click.option("-o", "--out", default="experiments", show_default=True, help="Folder of the answers.")
@json_option
def show_(name: str, size: str | None, out: str, as_json: bool) -> None:
    """The answer to the question NAME that was found before."""
    from mobtk import experiments

    result = experiments.stored(name, size=size, out=out)
    made = (
        f"{experiments.command(result)}\n"
        f"size {result['size']}, seeds {result['seeds']}, data {result['dataset']['name']}, {result['seconds']:.0f} s, "
        f"mobtk {result['environment']['mobtk']}"
    )
    show(result, as_json, f"{experiments.table(result)}\n{made}")


@experiment.command()
@click.argument("name")
@click.option("--size", default="cpu", show_default=True, help="smoke, cpu or full.")
@click.option("-o", "--out", default="experiments", show_default=True, help="Folder; what is trained there is used again.")
@click.option("--seeds", type=int, default=1, show_default=True, help="Trainings of each case.")
@click.option("--data", multiple=True, metavar="DATASET", help="A dataset folder, or several for questions that want such; "
              "by default built-in data.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def run(name: str, size: str, out: str, seeds: int, data: tuple[str, ...], device: str, as_json: bool) -> None:
    """Answer the question NAME, such as mstar/reconstruction, and store the result with its figures."""
    from mobtk import experiments

    result = experiments.run_experiment(name, size=size, out=out, seeds=seeds, data=data, device=device)
    show(result, as_json, experiments.table(result))
