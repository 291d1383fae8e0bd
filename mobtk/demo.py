"""The whole loop on the built-in city: build, train, generate, evaluate."""

import logging
import time
from typing import Any

from mobtk.evaluation import evaluate, table
from mobtk.generation import generate
from mobtk.runs import build
from mobtk.storage import PathLike
from mobtk.training import train

log = logging.getLogger("mobtk")

WEEKS = 50_000
"""Of the city. Half of them train: no week is seen twice, so that little can be learned by heart."""


def demo(out: PathLike = "mobtk-demo", n: int = 2000, *, seed: int = 0, replace: bool = False) -> tuple[dict[str, Any], str]:
    """Run the demo; its result and what to print. ``mobtk demo`` does the same.

    Args:
        out: folder of the run.
        n: weeks to generate.
        seed: of the training and the generation.
        replace: replace an existing folder.
    """
    started = time.perf_counter()
    clock: dict[str, float] = {}

    def tick(what: str) -> None:
        clock[what] = round(time.perf_counter() - started - sum(clock.values()), 1)

    log.info(
        "1/4 build: the built-in city, %s weeks of %s people, and a coarse-to-fine model", f"{WEEKS:,}", f"{WEEKS // 4:,}"
    )
    run = build("demo", out, weeks=WEEKS, changes={"training.seed": seed}, replace=replace)
    tick("build")
    schedule = run.model().tokenizer.schedule
    log.info("2/4 train: %d tokens a week, decided in %d passes", schedule.n_tokens, schedule.n_groups)
    train(run)
    tick("train")
    log.info("3/4 generate: %s weeks of people drawn like the training population", f"{n:,}")
    generate(run, n, seed=seed)
    tick("generate")
    log.info("4/4 evaluate: against people the model has never seen")
    result = evaluate(run)
    tick("evaluate")
    result["seconds"] = clock
    health = max((e for e in run.history() if e["stage"] == "tokenizer"), key=lambda e: e["valid_accuracy"])
    text = (
        f"\n{result['n']:,} weeks a side, mean ± standard deviation over {result['repeats']} random halves of the test "
        f"people\n{table(result)}\n\n"
        "floor: real people against other real people, what a perfect generator scores on average at this size\n"
        f"tokenizer on held-out people: {health['valid_accuracy']:.1%} of hours decoded right, "
        f"{health['valid_codes_used']:.0f} codes used, perplexity {health['valid_codes_perplexity']:.0f}\n"
        f"seconds: {', '.join(f'{k} {v:.0f}' for k, v in clock.items())}\n"
        f"everything is in {run.path}; next:\n"
        f"mobtk report {run.path} -o report.html\n"
        f"mobtk build demo --data {run.path}/data --backbone mamba -o runs/mamba"
    )
    return result, text
