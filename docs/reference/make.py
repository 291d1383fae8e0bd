"""Write the pages of the reference from the code, and that of the experiments from their stored answers:
``python docs/reference/make.py``. A test holds that they are as made.
"""

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path

import click
import docstring_parser

import mobtk
from mobtk import contracts, experiments, plugins
from mobtk.cli import COMMANDS, cli
from mobtk.inventory import describe
from mobtk.registry import KINDS, Registry
from mobtk.testing import LAWS

HERE = Path(__file__).parent
MADE = "<!-- made from the code by docs/reference/make.py -->"


def laws() -> str:
    """Every law of every kind, a sentence each."""
    lines = [MADE, "", "# The laws", "", "What every part is held to, by kind: `mobtk plugins check`, or one line of pytest",
             "([the contracts](../contracts.md)). Each is a function of a module of `mobtk.testing.laws`."]  # fmt: skip
    for kind, own in LAWS.items():
        lines += ["", f"## {kind.capitalize()}", ""]
        lines += [f"- `{law.__name__}`: {_words(law.__doc__ or '')}" for law in own]
    return "\n".join(lines) + "\n"


def all_contracts() -> str:
    """Every contract, with what it declares and promises."""
    lines = [MADE, "", "# The contracts in full", "", "From `mobtk/contracts.py`, which is the file to read first."]
    for kind, own in contracts.CONTRACTS.items():
        for contract in own:
            text = docstring_parser.parse(inspect.getdoc(contract) or "")
            lines += ["", f"## {contract.__name__}", "", f"*kind `{kind}`*", "", _words(text.description or ""), ""]
            if text.params:
                lines += ["Has:", "", *(f"- `{p.arg_name}`: {_words(p.description or '')}" for p in text.params), ""]
            declared = _declared(contract)
            if declared:
                lines += ["Declares:", "", *declared, ""]
            for name, method in vars(contract).items():
                method = getattr(method, "__func__", method)
                if inspect.isfunction(method) and (not name.startswith("_") or name == "__call__"):
                    signature = inspect.signature(method)
                    arguments = ", ".join(_plain(p) for p in signature.parameters.values())
                    lines += [f"- `{name}({arguments})`: {_words(inspect.getdoc(method) or '')}"]
    return "\n".join(lines) + "\n"


def _declared(contract: type) -> list[str]:
    """Names with the docstrings that stand below them in the source."""
    body = ast.parse(inspect.getsource(contract)).body[0].body  # type: ignore[attr-defined]
    found = []
    for line, below in pairwise(body):
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            default = f" (`{ast.unparse(line.value)}`)" if line.value else ""
            found.append(f"- `{ast.unparse(line.target)}`{default}: {_words(below.value.value)}")
    return found


def _words(text: str) -> str:
    """A docstring, or a part of one, as one line of Markdown."""
    text = re.sub(r":\w+:`~?(?:mobtk\.)?([^`]+)`", r"`\1`", text)
    return " ".join(text.split()).replace("``", "`")


def _plain(parameter: inspect.Parameter) -> str:
    prefix = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{prefix}{parameter.name}{default}"


def hooks() -> str:
    """The hook and what may be done in it."""
    hook = plugins.Hooks.mobtk_register
    lines = [
        MADE,
        "",
        "# The hook",
        "",
        f"A plugin is a module with one function, found by the entry-point group `{plugins.GROUP}`.",
        f"Plugin API: {plugins.API_VERSION}; the oldest that is still loaded: {plugins.OLDEST_API_VERSION}.",
        "",
        "```python",
        "import mobtk",
        "",
        f"MOBTK_API_VERSION = {plugins.API_VERSION}",
        "",
        "",
        "@mobtk.hookimpl",
        f"def {hook.__name__}(registry):",
        f'    """{inspect.getdoc(hook)}"""',
        "```",
        "",
        "## registry",
        "",
    ]
    for name, method in vars(Registry).items():
        if inspect.isfunction(method) and not name.startswith("_") and name not in ("merge", "entries", "find"):
            arguments = ", ".join(list(inspect.signature(method).parameters)[1:])
            first = (inspect.getdoc(method) or "").split("\n\n")[0]
            lines.append(f"- `registry.{name}({arguments})`: {_words(first)}")
    lines += ["", "## Environment", "", "- `MOBTK_PLUGINS=a,b`: load only these (and the built-in parts)."]
    lines += ["- `MOBTK_STRICT_PLUGINS=1`: a plugin that fails is fatal, for CI."]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options."""
    lines = [
        MADE,
        "",
        "# The commands",
        "",
        "As `mobtk COMMAND --help` has it. `mobtk --plugin FILE.py COMMAND` loads a file.",
        "",
    ]
    context = click.Context(cli, info_name="mobtk")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        lines += _command(command, click.Context(command, info_name=name, parent=context), 2)
    return "\n".join(lines).rstrip() + "\n"


def _command(command: click.Command, context: click.Context, depth: int) -> list[str]:
    """A command, and those below it."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    told = inspect.cleandoc(command.help or "").replace("\b\n", "").split("\n\n")
    lines = [f"{'#' * depth} {context.command_path}", "", f"`{usage}`", ""]
    for part in told:
        typed = (
            ["```sh", *(line.strip() for line in part.splitlines()), "```"] if part.startswith("mobtk ") else [_words(part)]
        )
        lines += [*typed, ""]
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    shown = [p for p in options if not p.hidden and "--help" not in p.opts]
    for option in shown:
        kind = "" if option.is_flag else f" {option.make_metavar(context)}"
        default = "" if option.default in (None, False, ()) or not option.show_default else f" Default: `{option.default}`."
        required = " Required." if option.required else ""
        lines.append(f"- `{', '.join(option.opts)}{kind}`: {option.help or ''}{default}{required}")
    lines += [""] if shown else []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            lines += _command(below, click.Context(below, info_name=name, parent=context), depth + 1)
    return lines


def parts() -> str:
    """Every part of mobtk and of the papers' plugins, with its options."""
    lines = [
        MADE,
        "",
        "# The parts",
        "",
        "What mobtk and the plugins of the three papers register, with what may be chosen of it (`mobtk plugins show`).",
        "Recipes are printed whole by `mobtk plugins show` and drawn by `mobtk explain`.",
        "",
    ]
    for kind in KINDS:
        own = [e for e in plugins.registry().entries(kind) if e.package in OURS]
        if kind == "experiment" or not own:
            continue
        lines += [f"## {kind.capitalize()}s", ""]
        for entry in own:
            lines.append(f"- **{entry.full_name}**: {entry.summary}.")
            if kind != "recipe":
                chosen = next(d for d in describe(entry.full_name) if d.kind == kind).options
                lines += [f"    - `{o.name} = {o.default}`: {_words(o.meaning)}" for o in chosen]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def python() -> str:
    """The public functions and classes, which the site draws from their docstrings."""
    lines = [MADE, "", "# Python", "", "What `import mobtk` offers; each command has a function that does the same.", ""]
    return "\n".join(lines + [f"::: mobtk.{name}\n" for name in mobtk._PUBLIC]).rstrip() + "\n"


ANSWERS = HERE.parent / "results" / "experiments"
BESIDE = re.compile(
    r"\b(floor|real|markov|constant velocity|stay put|interpolation|best baseline|last value|historical average|"
    r"seasonal naive|ridge|time of day|EPR|below the entropy)\b",
    re.IGNORECASE,
)
"""How a row or a column is known to be what others are held against."""


def answers() -> str:
    """All questions of the papers, with the answers that are stored: size, seeds, data, floor or baselines, command."""
    lines = [
        MADE,
        "",
        "# The questions of the three papers",
        "",
        "Each is one command; `mobtk experiment show NAME -o docs/results/experiments` prints what is stored. **Size**",
        "`smoke` only shows that it works, and answers nothing; `cpu` is an hour or less on one core. **Held against**",
        "names the floor or the baselines among the figures below. Longer runs, more seeds and more data are told in",
        "[M-STAR](mstar.md), [STM3](stm3.md) and [points](trajfm.md).",
    ]
    told: list[str] = []
    for package in OURS:
        own = [e for e in plugins.registry().entries("experiment") if e.package == package]
        if not own:
            continue
        lines += ["", f"## {package}", "", "| question | answer | size | seeds | data | held against |"]
        lines += ["|---|---|---|---|---|---|"]
        for entry in own:
            name = f"{entry.package}/{entry.name}"
            try:
                result = experiments.stored(name, out=ANSWERS)
            except mobtk.MobtkError:
                lines.append(f"| {name}: {entry.load().question} | no answer is stored | - | - | - | - |")
                continue
            anchor = name.replace("/", "")
            holds = {True: "yes", False: "no", None: "cannot tell"}[result["holds"]]
            holds = "only tried" if result["size"] == "smoke" else holds
            cells = [f"[{name}](#{anchor}): {result['question']}", holds, result["size"], str(result["seeds"]),
                     result["dataset"]["name"], "; ".join(_beside(result["rows"])) or "-"]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
            text = experiments.table(result).partition("\n\n")[2]
            if result["size"] == "smoke":
                text = re.sub(
                    r"^(holds|does not hold|cannot be told at this size): ", "only tried: ", text, flags=re.MULTILINE
                )
            typed = ["```sh", experiments.command(result), "```"]
            told += ["", f"### {name}", "", result["question"], "", *typed, "", "```text", text, "```"]
    return "\n".join([*lines, "", "## The figures", *told]) + "\n"


def _beside(rows: list[dict[str, object]]) -> list[str]:
    """Names of rows and columns that are floors or baselines."""
    named = [str(next(iter(row.values()))) for row in rows] + [key for row in rows for key in list(row)[1:]]
    return [n for n in dict.fromkeys(named) if BESIDE.search(n)][:6]


OURS = ("mobtk", "mstar", "stm3", "trajfm")
PAGES = {
    "laws.md": laws,
    "contracts.md": all_contracts,
    "hooks.md": hooks,
    "commands.md": commands,
    "parts.md": parts,
    "python.md": python,
    "../results/experiments.md": answers,
}


if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
