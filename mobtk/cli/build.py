"""``mobtk parts`` and ``mobtk build``."""

from typing import TYPE_CHECKING, Any

import click

from mobtk.cli import again, force_option, json_option, settings, show

if TYPE_CHECKING:
    from mobtk.recipe import Recipe
    from mobtk.runs import Run


@click.command()
@click.argument("kind", required=False)
@json_option
def parts(kind: str | None, as_json: bool) -> None:
    """List the parts and recipes that are installed, all of them or those of one KIND."""
    from mobtk.errors import BadInput
    from mobtk.plugins import FOLDER, loaded, registry
    from mobtk.registry import KINDS
    from mobtk.tables import aligned

    loaded().add_folder(FOLDER)

    if kind is not None and kind not in KINDS:
        raise BadInput(f"there is no kind of part called {kind!r}; there are {', '.join(KINDS)}")
    found = [e for k in KINDS for e in registry().entries(k) if kind in (None, k)]
    rows = [{"kind": e.kind, "name": e.name, "full_name": e.full_name, "summary": e.summary} for e in found]
    show(rows, as_json, "\n".join(aligned([(e.kind, e.name, e.package, e.summary) for e in found], left=4)))


@click.command()
@click.argument("recipe", default="default")
@click.option("-o", "--out", default="run", show_default=True, help="Folder of the run.")
@click.option("--data", metavar="DATASET", help="A dataset folder; by default the built-in city, or walks.")
@click.option("--weeks", type=int, default=10_000, show_default=True, help="Size of the built-in city; for points, walks.")
@click.option("--mapper", help="Spatial mapper, such as grid or h3.")
@click.option("--tokenizer", help="Tokenizer, such as rvq or cells.")
@click.option("--mixer", help="What mixes over the nodes of a field, such as graph.")
@click.option("--backbone", help="Backbone, such as transformer, mamba or gpt2.")
@click.option("--router", help="Router, such as input or entity.")
@click.option("--experts", type=int, help="Backbones the router chooses among.")
@click.option("--history", type=int, help="Steps that a forecaster reads.")
@click.option("--horizon", type=int, help="Steps that a forecaster foretells.")
@click.option("--traits", help="Comma-separated traits to condition on; empty for none.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any setting, such as tokenizer.codes=512.")
@force_option
@json_option
def build(
    recipe: str,
    out: str,
    data: str | None,
    weeks: int,
    history: int | None,
    horizon: int | None,
    traits: str | None,
    pairs: tuple[str, ...],
    replace: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Assemble a model from parts by name and write it as a run.

    RECIPE is the name of an installed recipe (see: mobtk parts recipe) or a TOML file. Options replace its parts.

    \b
    mobtk build --tokenizer rvq --backbone mamba -o runs/mamba
    mobtk build autoregressive --data my-city --router entity --experts 4
    mobtk build forecaster --data my-field --horizon 24
    mobtk build completer --data my-trajectories --backbone gpt2
    """
    from mobtk.runs import build as build_run

    changes = {key: value for key, value in chosen.items() if value is not None}
    steps = {"forecast.history": history, "forecast.horizon": horizon}
    changes |= {key: value for key, value in steps.items() if value is not None}
    if traits is not None:
        changes["traits"] = [t.strip() for t in traits.split(",") if t.strip()]
    run = build_run(recipe, out, data=data, weeks=weeks, changes=changes | settings(pairs), replace=replace)
    result, text = {"generate": _generator, "forecast": _forecaster, "complete": _completer}[run.recipe.task](run)
    show(
        {"run": str(run.path), "recipe": run.recipe.dumps(), **result}, as_json, f"{text}\nnext: {again()} train {run.path}"
    )


def _generator(run: "Run") -> tuple[dict[str, Any], str]:
    model, r = run.model(), run.recipe
    schedule = model.tokenizer.schedule
    size = {"codec": 0, "generator": 0}
    for name, p in model.named_parameters():
        size["codec" if name.startswith("tokenizer.codec.") else "generator"] += p.numel()
    return {"tokens": schedule.n_tokens, "passes": schedule.n_groups, "parameters": size}, (
        f"{run.path}: for {run.data['name']}\nmapper {run.data['mapper']['name']}, tokenizer {r.tokenizer.name}, "
        f"backbone {r.backbone.name}{_routed(r)}\n"
        f"{schedule.n_tokens} tokens a sequence in {schedule.n_groups} passes; {size['codec']:,} parameters in the codec, "
        f"{size['generator']:,} in the generator"
    )


def _forecaster(run: "Run") -> tuple[dict[str, Any], str]:
    model, r = run.forecaster(), run.recipe
    tokens, size = model.tokenizer.schedule.n_tokens, sum(p.numel() for p in model.parameters())
    return {"tokens": tokens, "parameters": {"forecaster": size}}, (
        f"{run.path}: for {run.data['name']}\n"
        f"tokenizer {r.tokenizer.name}, {r.forecast.layers} times mixer {r.mixer.name} and backbone {r.backbone.name}"
        f"{_routed(r)}\n{r.forecast.history} steps in {tokens} tokens of "
        f"{len(run.data['nodes']):,} nodes, {r.forecast.horizon} steps ahead; {size:,} parameters"
    )


def _completer(run: "Run") -> tuple[dict[str, Any], str]:
    model, r = run.completer(), run.recipe
    size = sum(p.numel() for p in model.parameters())
    learns = [f"{r.complete.onward:.0%} step by step"] if r.complete.onward else []
    masks = ", ".join(m.name for m in r.complete.masks)
    learns += [f"{1 - r.complete.onward:.0%} at once ({masks})"] if r.complete.onward < 1 else []
    return {"parameters": {"completer": size}}, (
        f"{run.path}: for {run.data['name']}\ntokenizer {r.tokenizer.name}, backbone {r.backbone.name}\n"
        f"{r.complete.window} points in tokens of {model.tokenizer.patch}; learns {' and '.join(learns)}\n"
        f"{size:,} parameters"
    )


def _routed(recipe: "Recipe") -> str:
    shared = " and a shared one" if recipe.shared else ""
    return f", router {recipe.router.name} x {recipe.experts}{shared}" if recipe.experts > 1 else shared
