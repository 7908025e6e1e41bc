"""The command line: parse, call the public names, print. Results go to stdout,
everything about how it went to stderr.

Exit codes: 0 done; 1 a bug of ours; 2 something the user can fix; 3 a check
failed; 130 interrupted, can be resumed.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from advisor.cli.output import EXIT_BUG, EXIT_INTERRUPTED, EXIT_USER
from advisor.console import printable, say
from advisor.errors import UserError, did_you_mean
from advisor.machine import as_ctrl_c

FIXABLE = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT)
"""What the system may say of a name on the command line, or of stdout, wherever it is met."""
FAMILIES = {
    "recommend": "advise",
    "check": "advise",
    "repair": "repair",
    "train": "search",
    "tune": "search",
    "status": "search",
    "stop": "search",
    "finish": "search",
    "predict": "use",
    "enrol": "use",
    "report": "use",
    "export": "use",
    "compare": "use",
    "why": "advise",
    "what-if": "advise",
    "diff": "advise",
    "rules": "rules",
    "dashboard": "dashboard",
    "doctor": "doctor",
    "serve": "service",
    "token": "service",
    "mcp": "service",
}
"""Each command, in the order of ``--help``, and the module of this folder that has it: the function of the
same name, with _ for -. A module is imported when its command is run or its help is shown."""
VERSIONS_OF = ("tuning-advisor", "torch", "optuna", "ray", "polars", "numpy", "scikit-learn")
HELP = """Advice before you tune a neural network, and the tuning.

\b
  advisor recommend data.csv --target income
  advisor tune data.csv --target income --trials 40
  advisor predict runs/data new_rows.csv --out predictions.csv
"""


class Commands(click.Group):
    """Commands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(FAMILIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in FAMILIES:
            return None
        family = import_module(f"advisor.cli.{FAMILIES[cmd_name]}")
        command: click.Command = getattr(family, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in FAMILIES and not args[0].startswith("-"):
            raise UserError(
                f"there is no command '{args[0]}'{did_you_mean(args[0], FAMILIES)}: see `advisor --help`"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, context: click.Context) -> Any:
        """Click makes exit code 1 of a reader that has left; it is no failure of ours."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            _leave_stdout()
            return 0


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=HELP,
    epilog="Exit codes: 0 done, 1 our bug, 2 something you can fix, 3 a check failed, 130 interrupted "
    "(resumable). `advisor COMMAND --help` shows examples.",
)
@click.version_option(package_name="tuning-advisor", prog_name="advisor", help="Show the version and exit.")
def cli() -> None:
    """See ``help`` above."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its documented code."""
    sys.exit(_run(arguments))


@as_ctrl_c()
def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="advisor", standalone_mode=False)
        if sys.stdout:  # there is none after `>&-`
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _complain(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return EXIT_USER
    except click.ClickException as error:
        return _complain(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        say("interrupted: finished work is kept; the same command resumes it")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return 0
    except OSError as error:
        if error.errno not in FIXABLE:
            return _report_bug(error)
        if error.filename is None:
            _leave_stdout()
        where = "cannot write the output" if error.filename is None else error.filename
        return _complain(f"{where}: {error.strerror}")
    # the last line of defence: a bug of ours is one line, not a traceback
    except Exception as error:  # noqa: BLE001
        return _report_bug(error)


def _leave_stdout() -> None:
    """Nobody reads on, or nothing fits: Python would complain once more when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    line = printable(" ".join(message.split()))
    say(f"error: {line[:1].lower() + line[1:] if line[:2].istitle() else line}".rstrip("."))
    return EXIT_USER


def _report_bug(error: Exception) -> int:
    say(f"error: a bug in advisor ({type(error).__name__}): please report it with {save_traceback(error)}")
    return EXIT_BUG


def save_traceback(error: BaseException) -> Path:
    """Write the traceback with versions and command line into the run folder that the
    error names, else into a temporary one: a file that a user can send us."""
    import traceback
    from importlib.metadata import PackageNotFoundError, version

    from advisor.files import write_text

    folder = getattr(error, "run_folder", None) or tempfile.mkdtemp(prefix="advisor-bug-")
    path = Path(folder) / "error.log"
    lines = [" ".join(sys.argv), f"python {platform.python_version()} on {platform.platform()}"]
    for name in VERSIONS_OF:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} is not installed")
    write_text(path, "\n".join([*lines, "", *traceback.format_exception(error)]))
    return path


if __name__ == "__main__":
    main()
