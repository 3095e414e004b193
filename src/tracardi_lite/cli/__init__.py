"""The command line: flags to settings, errors to exit codes and sentences.

Exit codes: 0 done; 1 it could not be done; 2 used or configured wrongly, nothing was done; 130 interrupted.
Results go to standard output, what went wrong to standard error. ``--json`` is for programs and keeps its shape.

``serve`` needs little of what is here, so whatever is heavy (rich, the app) is imported by the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from tracardi_lite import __version__
from tracardi_lite.cli import access, backlog, config, dead_letters, partitions, queue_policy, records, rules, server
from tracardi_lite.errors import Misconfigured, TracardiLiteError, Untrusted
from tracardi_lite.settings import Problems

_HELP = """Collects customers' events, keeps their profiles, stores it all: one program.

\b
First steps:
  tracardi-lite serve                  start; prints a curl line to paste
  tracardi-lite events --profile ID    what a customer did
  tracardi-lite settings               what can be set, and what is

Commands that look at data work beside a running server, on the same --data-dir.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tracardi-lite")
def cli() -> None:
    pass


for _command in (
    server.serve,
    server.install,
    server.healthcheck,
    config.settings,
    config.check_config,
    records.profile,
    records.events,
    partitions.partitions,
    backlog.backlog,
    backlog.ledger,
    backlog.seek,
    queue_policy.queue,
    dead_letters.dead_letters,
    access.source,
    rules.rules,
    access.user,
    access.secret,
):
    cli.add_command(_command)


def run(args: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Errors that are no bugs become a sentence on standard error."""
    try:
        code = cli.main(args, prog_name="tracardi-lite", standalone_mode=False)
        # Here, where a closed pipe can still be answered, instead of in the interpreter's last moments.
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        # click's word for Ctrl-C too, which may well have come in the middle of something.
        if isinstance(error.__cause__, KeyboardInterrupt):
            return 130
        click.echo("Aborted; nothing was changed.", err=True)
        return 1
    except Problems as error:
        count = len(error.problems)
        click.echo(f"The settings have {count} problem{'s' if count > 1 else ''}:", err=True)
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
        return 2
    except Misconfigured as error:
        click.echo(f"Misconfigured: {error}", err=True)
        return 2
    except Untrusted as error:
        click.echo(f"Misconfigured: {error.reason}", err=True)
        return 2
    except TracardiLiteError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    except BrokenPipeError:
        # `tracardi-lite … | head`: the reader has enough. Python would complain once more while exiting.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main() -> None:
    """The entry point of the installed program."""
    sys.exit(run())
