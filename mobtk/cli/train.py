"""``mobtk train``."""

import click

from mobtk.cli import again, json_option, show


@click.command()
@click.argument("run")
@click.option("--resume", is_flag=True, help="Go on where an earlier training stopped or was killed.")
@click.option("--restart", is_flag=True, help="Forget an earlier training.")
@click.option("--until", metavar="STAGE", help="Stop after this stage: tokenizer. --resume goes on with the next.")
@click.option("--from", "start", metavar="RUN", help="Begin with the weights of another run, as far as they fit.")
@click.option("--freeze", multiple=True, metavar="PART", help="A part that does not learn, such as backbone.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def train(
    run: str,
    resume: bool,
    restart: bool,
    until: str | None,
    start: str | None,
    freeze: tuple[str, ...],
    device: str,
    as_json: bool,
) -> None:
    """Train RUN: its tokenizer, where that learns, then its generator; or its forecaster, or completer.

    Ctrl-C stops after the step at hand and saves; --resume goes on exactly there. For several processes or GPUs:
    torchrun --nproc-per-node 2 -m mobtk train RUN
    """
    from mobtk.training import Stopped
    from mobtk.training import train as train_run

    try:
        trained = train_run(run, resume=resume, restart=restart, until=until, start=start, freeze=freeze, device=device)
    except Stopped as stop:
        click.echo(f"mobtk: {stop}; go on with: mobtk train {run} --resume", err=True)
        raise SystemExit(130) from None
    history = trained.history()
    best: dict[str, tuple[float, int]] = {}
    for entry in history:
        figure = entry.get("valid_loss", 1 - entry.get("valid_accuracy", 0))
        if entry["stage"] not in best or figure < best[entry["stage"]][0]:
            best[entry["stage"]] = (figure, entry["epoch"])
    what = {
        "tokenizer": "share of steps decoded wrong",
        "generator": "nats a token",
        "forecaster": "mean error as in its loss",
        "completer": "nats a hidden place or moment",
    }
    text = "\n".join(f"{s}: {what[s]} {figure:.4f} on validation, epoch {epoch}" for s, (figure, epoch) in best.items())
    nexts = {"generator": f"generate {run} -n 1000", "forecaster": f"evaluate {run}", "completer": f"evaluate {run}"}
    then = next((nexts[stage] for stage in nexts if stage in best), f"train {run} --resume")
    show(history, as_json, f"{text}\nnext: {again()} {then}")
