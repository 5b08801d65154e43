"""Stored journals through the present code: would instances that are under way go on with it?"""

from __future__ import annotations

from typing import Any

from dalsegno.authoring.process import Process
from dalsegno.engine.shadow import check_records
from dalsegno.errors import UsageError
from dalsegno.kernel.limits import Limits
from dalsegno.testing.journal import read


def replay(
    source: Any,
    process: Process[..., Any],
    *,
    id: str | None = None,
    namespace: str = "default",
    limits: Limits | None = None,
) -> None:
    """Replay a journal, each of its runs. Raises `JournalMismatch` with what was expected and what was found.

    Parameters: `source`, a `Journal`, records, or an export (a path or its text); `process`, the code; `id` and
    `namespace` of the instance where the source doesn't say them.
    """
    journal = read(source, id, namespace)
    if not len(journal):
        raise UsageError("the journal is empty: there is nothing to replay")
    for run in journal.runs():
        check_records(run, process.spec, journal.namespace, journal.id, limits or Limits())
