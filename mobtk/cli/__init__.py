"""The command line. Each command imports what it needs when it runs; ``--help`` imports click only."""

import importlib
import logging
import sys
from typing import Any

import click

from mobtk._version import __version__
from mobtk.errors import MobtkError

COMMANDS = {
    "demo": ("mobtk.cli.demo:demo", "Build, train, generate and evaluate on the built-in city, in a few minutes."),
    "data": ("mobtk.cli.data:data", "Make datasets of points, and look at them."),
    "parts": ("mobtk.cli.build:parts", "List the parts and recipes that are installed."),
    "build": ("mobtk.cli.build:build", "Assemble a model from parts by name."),
    "explain": ("mobtk.cli.explain:explain", "What happens to data in a model, box by box, and what it costs."),
    "train": ("mobtk.cli.train:train", "Train a run; stop and resume at any moment."),
    "generate": ("mobtk.cli.generate:generate", "Generate a synthetic population."),
    "forecast": ("mobtk.cli.forecast:forecast", "Foretell the next steps of a field."),
    "predict": ("mobtk.cli.complete:predict", "Foretell the next points of trajectories."),
    "complete": ("mobtk.cli.complete:complete", "Fill the gaps of trajectories."),
    "evaluate": ("mobtk.cli.evaluate:evaluate", "Score it, beside its floor and baselines."),
    "report": ("mobtk.cli.report:report", "A page about a run or a dataset: maps, scores, how it was made."),
    "animate": ("mobtk.cli.animate:animate", "A week as it is decided, pass by pass."),
    "audit": ("mobtk.cli.audit:audit", "Does a generator give away who it was trained on?"),
    "compare": ("mobtk.cli.compare:compare", "Vary parts at equal size, and compare what they score."),
    "experiment": ("mobtk.cli.experiment:experiment", "Answer named questions, each with a verdict."),
    "plugins": ("mobtk.cli.plugins:plugins", "List plugins, explain their problems, hold parts to their laws."),
    "doctor": ("mobtk.cli.doctor:doctor", "What this machine offers, and what is wrong with plugins."),
    "bench": ("mobtk.cli.bench:bench", "Measure speed on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mobtk")
@click.option("--plugin", "files", multiple=True, metavar="FILE.py", help="Load a single file as a plugin.")
@click.option("-q", "--quiet", is_flag=True, help="Print results, warnings and progress bars only.")
@click.pass_context
def cli(ctx: click.Context, files: tuple[str, ...], quiet: bool) -> None:
    """A mobility toolkit in which papers are plugins.

    Points in, a model assembled from parts by name, trained, a synthetic population out, and an honest score.
    Start with: mobtk demo
    """
    logger = logging.getLogger("mobtk")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        logger.addHandler(_AboveProgressBars())
        logger.propagate = False
    if files:
        from mobtk.plugins import loaded

        for file in files:
            loaded().add_file(file)
        if ctx.invoked_subcommand != "plugins":  # which can tell more of it
            loaded().refuse_skipped(files)


class _AboveProgressBars(logging.Handler):
    """Messages on standard error, without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")
        if bars is not None:
            bars.tqdm.write(self.format(record), file=sys.stderr)
        else:
            click.echo(self.format(record), err=True)


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit code 2."""
    try:
        cli.main(standalone_mode=False)
    except MobtkError as error:
        click.echo(f"mobtk: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mobtk: interrupted", err=True)
        sys.exit(130)


def show(result: Any, as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    if as_json:
        from mobtk.storage import to_json

        click.echo(to_json(result))
    else:
        click.echo(text)


def again() -> str:
    """``mobtk`` with the plugin files that it was called with, for hints of what to type next."""
    return " ".join(
        ["mobtk", *(f"--plugin {file}" for file in click.get_current_context().find_root().params.get("files", ()))]
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
force_option = click.option("--force", "replace", is_flag=True, help="Replace what exists.")


def settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` pairs, values as in TOML; what is no TOML is a string.

    Raises:
        BadInput: a pair without ``=``.
    """
    from mobtk.errors import BadInput

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set {pair!r} is not of the form key=value, such as --set tokenizer.codes=512")
        found[key.strip()] = literal(value)
    return found


def literal(value: str) -> Any:
    """A value as in TOML; what is no TOML is a string."""
    import tomllib

    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The seconds of an option such as ``5min``."""
    if value is None:
        return None
    import pandas as pd

    try:
        if value.replace(".", "", 1).isdigit() and float(value):
            raise ValueError  # pandas would take it for nanoseconds
        return float(pd.Timedelta(value).total_seconds())
    except ValueError:
        raise click.BadParameter(f"{value!r} is no duration; try 5min") from None
