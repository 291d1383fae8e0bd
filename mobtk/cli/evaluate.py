"""``mobtk evaluate``."""

import click

from mobtk.cli import json_option, settings, show


@click.command()
@click.argument("run")
@click.argument("generated", required=False)
@click.option(
    "--task", type=click.Choice(["fidelity", "next-place", "epidemic", "usefulness"]), default="fidelity", show_default=True
)
@click.option("--data", metavar="DATASET", help="Another dataset to compare with, of the same mapper.")
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option("-n", type=int, help="Sequences on each side; as many as there are by default.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Random halves of the real people.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--baselines/--no-baselines", default=True, show_default=True)
@click.option("--steps", metavar="A,B,...", help="Of a forecaster: steps ahead to show.")
@click.option("--mask", "masks", multiple=True, metavar="NAME", help="Of a completer: what is hidden; see mobtk parts mask.")
@click.option("--set", "pairs", multiple=True, metavar="MASK.KEY=VALUE", help="Options of masks, such as last.points=5.")
@click.option("--window", type=int, help="Of a completer: points of a piece.")
@click.option("--published", is_flag=True, help="Individual metrics as M-STAR's code computes them.")
@json_option
def evaluate(
    run: str,
    generated: str | None,
    task: str,
    data: str | None,
    split: str,
    n: int | None,
    repeats: int,
    seed: int,
    baselines: bool,
    steps: str | None,
    masks: tuple[str, ...],
    pairs: tuple[str, ...],
    window: int | None,
    published: bool,
    as_json: bool,
) -> None:
    """Score a GENERATED population of RUN against real people, beside the floor and the baselines.

    GENERATED is generated.parquet in the run's folder by default. The floor is real against other real people, at
    the same size: what a perfect generator scores on average. With --task next-place nothing is generated; each
    next place of the split is foretold. --task epidemic compares the course of a disease among the people; --task
    usefulness trains a predictor of the next place on generated and on real people and tests both on real ones.

    A RUN that is a forecaster is scored on all windows of the split, beside baselines; one that is a completer on what
    masks hide of the split's trajectories.
    """
    from mobtk import evaluation
    from mobtk.errors import BadInput
    from mobtk.runs import Run

    kind = Run(run).recipe.task
    if kind != "generate" and (task != "fidelity" or generated):
        raise BadInput(f"run {run} generates no people, so leave out {generated or f'--task {task}'}")
    if kind != "complete" and (masks or pairs or window):
        raise BadInput(f"run {run} completes no trajectories, so leave out --mask, --set and --window")
    if kind == "complete":
        from mobtk import completing

        options: dict[str, dict[str, object]] = {}
        for key, value in settings(pairs).items():
            mask, _, option = key.partition(".")
            options.setdefault(mask, {})[option] = value
        chosen = masks or tuple(dict.fromkeys([*completing.TASKS, *options]))
        result = completing.evaluate_completer(
            run, data=data, split=split, masks=chosen, options=options, window=window, n=n or completing.MOST, seed=seed,
            baselines=baselines,
        )  # fmt: skip
        text = f"split {split!r}, pieces of {result['window']} points: metres, seconds, shares of the time since the start\n"
        show(result, as_json, text + completing.table(result))
        return
    if kind == "forecast":
        from mobtk import forecasting

        try:
            ahead = [int(step) for step in steps.split(",")] if steps else None
        except ValueError:
            raise click.BadParameter(f"--steps wants numbers with commas between, not {steps!r}") from None
        result = forecasting.evaluate_forecaster(run, data=data, split=split, baselines=baselines, published=published)
        text = (
            f"{result['n']:,} windows of split {split!r}: {result['horizon']} steps of {result['step']} ahead, from "
            f"{result['history']}\n"
        )
        show(result, as_json, text + forecasting.table(result, ahead))
        return
    if task == "next-place":
        result = evaluation.evaluate_next_place(run, data=data, split=split)
        text = f"{result['n']:,} visits of split {split!r}, {result['places']:,} places\n"
    elif task == "usefulness":
        from mobtk.usefulness import usefulness

        result = usefulness(run, generated, n=n)
        ratio = ", ".join(f"{k} {v:.2f}" for k, v in result["ratio"].items())
        text = f"{result['n']:,} sequences to train on; generated over real: {ratio}\n"
    else:
        result = evaluation.evaluate(
            run, generated, data=data, split=split, n=n, repeats=repeats, seed=seed, baselines=baselines,
            task="published" if published else task,
        )  # fmt: skip
        text = f"{result['n']:,} sequences a side, {repeats} random halves of split {split!r}: mean ± standard deviation\n"
    show(result, as_json, text + evaluation.table(result))
