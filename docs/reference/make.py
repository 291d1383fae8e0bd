"""Write the pages of the reference from the code: ``python docs/reference/make.py``. A test holds that they are as made."""

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path

import docstring_parser

from mobtk import contracts, plugins
from mobtk.registry import Registry
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


PAGES = {"laws.md": laws, "contracts.md": all_contracts, "hooks.md": hooks}


if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
