"""All verbs, and how they end: 0 is well, 1 is refused or failed, 2 is a call that can't be right."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter

from dalsegno import __version__
from dalsegno.cli import screen
from dalsegno.errors import DalsegnoError, UsageError

_INTERRUPTED = 130

_VERBS = {
    "Run": ("run", "dev", "node", "worker", "replay", "verify"),
    "Instances": ("start", "list", "show", "watch", "result"),
    "Control": ("cancel", "terminate", "pause", "resume", "retry", "fork", "update"),
    "Events and people": ("publish", "tasks", "answer"),
    "Operations": ("top", "nodes", "queues", "deployments", "metrics"),
    "Journals and store": ("export", "import", "db"),
}
_SHOWING: tuple[list[str], ...] = ([], ["--help"], ["-h"])
_RESERVED = {"import": "import_:import_", "list": "list:list_", "db": "db:db"}


def program(*, whole: bool = False) -> App:
    """The program; a verb's file is loaded when the verb is used, or at once where the `whole` is to be shown."""
    app = App(
        name="dalsegno",
        help="Durable business processes: run them, see where each one stands, and lend a hand.\n\n"
        "What a verb takes: dalsegno VERB --help",
        version=__version__,
        default_parameter=Parameter(negative="", show_default=False),
        help_format="plaintext",
    )
    for order, (title, verbs) in enumerate(_VERBS.items()):
        group = Group(title, sort_key=order)
        for place, verb in enumerate(verbs):
            app.command(f"dalsegno.cli.{_RESERVED.get(verb, f'{verb}:{verb}')}", name=verb, group=group, sort_key=place)
            if whole:
                # Only what is loaded has a line of help.
                app[verb]
    return app


def run_program(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    screen.allow_remarks(not as_json)
    try:
        code = program(whole=given[:1] in _SHOWING)(given, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError:
        # It has said what is wrong.
        return 2
    except DalsegnoError as error:
        screen.complain(error, as_json)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A time-out, or a file that can't be read or written.
        screen.complain(error, as_json)
        return 1
    return code or 0
