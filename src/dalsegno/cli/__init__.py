"""The command line: one file a verb, thin; what a verb means is said elsewhere."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `dalsegno` with arguments, the command line's where none are given; returns the exit code."""
    # Nothing of the command line is loaded before it is used: `import dalsegno` stays quick.
    from dalsegno.cli.program import run_program

    return run_program(arguments)
