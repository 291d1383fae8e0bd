"""``mobtk plugins``."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from mobtk.cli import json_option, settings, show

if TYPE_CHECKING:
    from mobtk.inventory import Description


@click.group()
@click.pass_context
def plugins(ctx: click.Context) -> None:
    """List plugins, explain their problems, hold parts to their laws, begin one of your own."""
    from mobtk.plugins import FOLDER, loaded

    loaded().add_folder(FOLDER)
    if ctx.invoked_subcommand not in ("list", "doctor"):
        loaded().refuse_skipped(ctx.find_root().params.get("files", ()))


@plugins.command("list")
@json_option
def list_(as_json: bool) -> None:
    """What is installed: distribution, licence, parts, and how long each plugin takes to load."""
    from mobtk.plugins import loaded
    from mobtk.tables import aligned

    found = loaded().plugins
    rows = [("plugin", "from", "licence", "parts", "loaded in")]
    rows += [
        (p.name, p.origin, p.licence or "-", "skipped" if p.problem else str(p.parts), f"{p.seconds * 1000:.0f} ms")
        for p in found
    ]
    show([p.__dict__ for p in found], as_json, "\n".join(aligned(rows, left=5)))


@plugins.command("show")
@click.argument("name")
@json_option
def show_(name: str, as_json: bool) -> None:
    """Where plugin or part NAME lives, what it promises, and its options with their defaults."""
    import msgspec

    from mobtk.inventory import describe

    found = describe(name)
    show([msgspec.to_builtins(d) for d in found], as_json, "\n\n".join(_text(d, len(found) > 3) for d in found))


def _text(d: "Description", short: bool) -> str:
    lines = [f"{d.kind} {d.name}: {d.summary}", f"  {d.place}"]
    if d.problem:
        lines.append(f"  {d.problem}")
    if short:
        return "\n".join(lines)
    lines.insert(1, f"  of {d.plugin}{f', {d.licence}' if d.licence else ''}")
    if d.contract:
        lines += [f"  is a {d.contract}, built as {d.built}"]
    if d.declares:
        lines += ["  declares " + ", ".join(f"{k}={v}" for k, v in d.declares.items())]
    for o in d.options:
        lines += [f"    {o.name}{': ' + o.type if o.type else ''} = {o.default}{'  ' + o.meaning if o.meaning else ''}"]
    for text in (d.doc, d.recipe):
        if text:
            lines += ["", *(f"  {line}".rstrip() for line in text.strip().splitlines())]
    return "\n".join(lines)


@plugins.command()
@json_option
def doctor(as_json: bool) -> None:
    """Why a plugin was skipped, which parts do not load, and what imports do that they should leave."""
    import msgspec

    from mobtk.inventory import faults
    from mobtk.plugins import loaded, registry

    found = faults()
    lines = []
    for fault in found:
        lines.append(f"{fault.what}: {fault.problem}")
        lines += [f"    {line}" for line in fault.trace.splitlines()]
    healthy = f"{len(loaded().plugins)} plugins, {len(list(registry()))} parts and recipes: all well"
    result = {"plugins": len(loaded().plugins), "parts": len(list(registry())), "faults": msgspec.to_builtins(found)}
    show(result, as_json, "\n".join(lines) or healthy)
    if any(f.serious for f in found):
        raise SystemExit(1)


@plugins.command()
@click.argument("name", required=False)
@click.option(
    "--set", "pairs", multiple=True, metavar="OPTION=VALUE", help="Options of the one part NAME, instead of its defaults."
)
@click.option("-v", "--verbose", is_flag=True, help="The laws that hold, too, and the stack where one does not.")
@json_option
def check(name: str | None, pairs: tuple[str, ...], verbose: bool, as_json: bool) -> None:
    """Hold the parts of plugin NAME, or of all plugins, or one part, to the laws of their kind."""
    import msgspec

    from mobtk.errors import BadInput
    from mobtk.plugins import loaded, registry
    from mobtk.testing import check_parts

    if name is not None and not loaded().offered(name) and name not in {e.full_name for e in registry()}:
        names = ", ".join(p.name for p in loaded().plugins if not p.problem)
        raise BadInput(f"no plugin {name!r} is loaded; loaded are {names}; or name a part in full, such as mobtk.grid")
    if pairs and name not in {e.full_name for e in registry()}:
        raise BadInput("--set is of one part; name it in full, such as mobtk.transformer")
    verdicts = check_parts(name, settings(pairs))
    lines = []
    for part in dict.fromkeys(v.part for v in verdicts):
        own = [v for v in verdicts if v.part == part]
        broken = [v for v in own if v.problem]
        lines.append(
            f"{part:<36}" + (f"breaks {len(broken)} of {len(own)} laws" if broken else f"keeps all {len(own)} laws")
        )
        for problem, n in Counter(v.problem for v in broken).items() if not verbose else ():
            if n > 2:  # one fault that shows everywhere
                first = next(v for v in broken if v.problem == problem)
                lines += [f"  BROKEN  in {n} of them: {problem}", *([f"          at {first.where}"] if first.where else [])]
                broken = [v for v in broken if v.problem != problem]
        for v in own if verbose else broken:
            lines.append(f"  {'BROKEN' if v.problem else 'ok':<8}{v.law}" + (f": {v.problem}" if v.problem else ""))
            if v.problem and v.where:
                lines.append(f"          at {v.where}")
            if v.problem and verbose:
                lines += [f"          {line}" for line in v.trace.splitlines()]
    show([msgspec.to_builtins(v) for v in verdicts], as_json, "\n".join(lines))
    if any(v.problem for v in verdicts):
        raise SystemExit(1)


@plugins.command()
@click.argument("name")
@click.option("-o", "--out", help="Folder; by default mobtk-NAME.")
@click.option("--mapper/--no-mapper", default=None, help="A spatial mapper.")
@click.option("--tokenizer/--no-tokenizer", default=None, help="A tokenizer of sequences.")
@click.option("--field-tokenizer/--no-field-tokenizer", default=None, help="A tokenizer of fields.")
@click.option("--point-tokenizer/--no-point-tokenizer", default=None, help="A tokenizer of points.")
@click.option("--backbone/--no-backbone", default=None, help="A sequence backbone.")
@click.option("--router/--no-router", default=None, help="A router of experts.")
@click.option("--mixer/--no-mixer", default=None, help="A mixer of nodes.")
@click.option("--mask/--no-mask", default=None, help="A mask.")
@click.option("--recipe/--no-recipe", default=None, help="A paper's recipe.")
@click.option("--experiment/--no-experiment", default=None, help="A question with a verdict.")
@click.option("--author", default="", help="For the licence and the package; by default who git says you are.")
@click.option("--licence", default=None, help="MIT, BSD-3-Clause, ISC or none.  [default: MIT]")
@json_option
def new(name: str, out: str | None, author: str, licence: str | None, as_json: bool, **kinds: bool | None) -> None:
    """Begin a plugin package called NAME with a part of each kind asked for, which works as it is.

    Without a choice it asks, kind by kind; with some, only those are made.

    \b
    mobtk plugins new acme --backbone --recipe
    pip install -e mobtk-acme && mobtk plugins check acme
    """
    from mobtk.testing.template import KINDS, make_plugin

    if all(wanted is None for wanted in kinds.values()):
        kinds = {kind: click.confirm(f"{KINDS[kind]}?", default=kind == "backbone") for kind in kinds}
        licence = licence or click.prompt("licence (MIT, BSD-3-Clause, ISC, none)", default="MIT")
    wanted = [kind for kind, yes in kinds.items() if yes]
    path = make_plugin(name, out, kinds=wanted, author=author, licence=licence or "MIT")
    files = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
    show(
        {"path": str(path), "kinds": wanted, "files": files},
        as_json,
        "\n".join([f"{path}:", *(f"  {f}" for f in files), f"next: pip install -e {path} && mobtk plugins check {name}"]),
    )
