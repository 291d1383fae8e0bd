"""``mobtk plugins``."""

import click
import msgspec

from mobtk.cli import json_option, show


def problems() -> list[dict[str, str]]:
    """What is wrong with plugins and with the parts they register."""
    from mobtk.contracts import CONTRACTS
    from mobtk.errors import MobtkError
    from mobtk.models.assemble import load_part
    from mobtk.plugins import loaded, registry

    found = [{"what": f"plugin {p.name} ({p.origin})", "problem": p.problem} for p in loaded().plugins if p.problem]
    for entry in registry():
        try:
            if entry.kind in CONTRACTS:
                load_part(entry.kind, entry.full_name)
            else:
                entry.load()
        except MobtkError as error:
            found.append({"what": f"{entry.kind} {entry.full_name}", "problem": str(error)})
        except Exception as error:  # a plugin may raise anything at import
            found.append({"what": f"{entry.kind} {entry.full_name}", "problem": f"{type(error).__name__}: {error}"})
    return found


@click.group()
def plugins() -> None:
    """List plugins, explain their problems, hold parts to their laws."""


@plugins.command("list")
@json_option
def list_(as_json: bool) -> None:
    """What is installed, and how many parts each plugin brings."""
    from mobtk.plugins import loaded

    found = loaded().plugins
    text = "\n".join(
        f"{p.name:<16}{p.origin:<28}{'skipped' if p.problem else f'{p.parts} parts':<12}{p.seconds * 1000:6.0f} ms"
        for p in found
    )
    show([p.__dict__ for p in found], as_json, text)


@plugins.command()
@json_option
def doctor(as_json: bool) -> None:
    """Why a plugin was skipped, and which registered parts do not import."""
    from mobtk.plugins import loaded, registry

    found = problems()
    healthy = f"{len(loaded().plugins)} plugins, {len(list(registry()))} parts and recipes: all well"
    show(found, as_json, "\n".join(f"{f['what']}: {f['problem']}" for f in found) or healthy)
    if found:
        raise SystemExit(1)


@plugins.command()
@click.argument("name", required=False)
@json_option
def check(name: str | None, as_json: bool) -> None:
    """Hold the parts of plugin NAME, or of all plugins, to the laws of their kind."""
    from mobtk.errors import BadInput
    from mobtk.plugins import loaded
    from mobtk.testing import check_parts

    if name is not None and name not in {p.name for p in loaded().plugins if not p.problem}:
        names = ", ".join(p.name for p in loaded().plugins if not p.problem)
        raise BadInput(f"no plugin {name!r} is loaded; loaded are {names}")
    verdicts = check_parts(name)
    lines = [f"{'ok' if v.problem is None else 'BROKEN':<8}{v.part:<28}{v.law}" + (f": {v.problem}" if v.problem else "")
             for v in verdicts]  # fmt: skip
    show([msgspec.to_builtins(v) for v in verdicts], as_json, "\n".join(lines))
    if any(v.problem for v in verdicts):
        raise SystemExit(1)
