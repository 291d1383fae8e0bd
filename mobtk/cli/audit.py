"""``mobtk audit``."""

import click

from mobtk.cli import json_option, show


@click.command()
@click.argument("run")
@click.argument("generated", required=False)
@click.option("-n", type=int, help="Sequences on each side at most; 2,000.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--fail-if",
    multiple=True,
    metavar="CONDITION",
    help="Exit with code 1 if it holds, such as 'copies>0.05'.",
)
@json_option
def audit(
    run: str, generated: str | None, n: int | None, seed: int, device: str, fail_if: tuple[str, ...], as_json: bool
) -> None:
    """Audit the privacy of RUN and of a population it GENERATED: copies, membership inference, canaries.

    Training people are compared with as many that the model never saw. Canaries are planted before training, with
    mobtk data canaries.

    \b
    mobtk audit runs/mine --fail-if "distance_attack_auc>0.55" --fail-if "copies>0.05"
    """
    from mobtk import audit as audits

    result = audits.audit(run, generated, n=n, seed=seed, device=device, fail_if=fail_if)
    show(result, as_json, audits.table(result))
    if result["failed"]:
        raise SystemExit(1)
