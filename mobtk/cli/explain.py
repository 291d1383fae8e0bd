"""``mobtk explain``."""

import click

from mobtk.cli import json_option, settings, show


@click.command()
@click.argument("what")
@click.option("--data", metavar="DATASET", help="What a recipe is put together for; a little built-in data by default.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any setting of a recipe, such as backbone=mamba.")
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "svg"]), help="By default that of --out, or text.")
@click.option("-o", "--out", metavar="FILE", help="Write it there, such as model.svg or model.mmd.")
@json_option
def explain(what: str, data: str | None, pairs: tuple[str, ...], form: str | None, out: str | None, as_json: bool) -> None:
    """What happens to data in a recipe or run: each box with its shapes, parameters, operations and state, and its plugin.

    \b
    mobtk explain mstar
    mobtk explain default --set backbone=mamba -o model.svg
    """
    import msgspec

    from mobtk import explaining
    from mobtk.errors import BadInput
    from mobtk.storage import write_text

    kinds = {"svg": "svg", "mmd": "mermaid", "md": "text", "txt": "text"}
    if form is None and out is not None and out.rpartition(".")[2] not in kinds:
        raise BadInput(f"{out}: a picture is .svg, a Mermaid chart .mmd, text .txt; or say which with --format")
    form = form or kinds.get((out or "").rpartition(".")[2], "text")
    if form == "svg" and out is None:
        raise BadInput("an SVG wants a file: -o model.svg")
    flow = explaining.explain(what, data=data, changes=settings(pairs))
    words = explaining.mermaid(flow) if form == "mermaid" else explaining.text(flow)
    if out is not None and form == "svg":
        explaining.svg(flow, out)
    elif out is not None:
        write_text(out, words)
    show(msgspec.to_builtins(flow), as_json, words if out is None else f"{out}: {len(flow.boxes)} boxes")
