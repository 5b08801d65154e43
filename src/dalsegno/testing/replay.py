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
    """Replay journals, each of their runs. Raises `JournalMismatch` with what was expected and what was found.

    Parameters: `source`, a `Journal`, records, or an export (a path or its text), of which the instances of this
    process count; `process`, the code; `id` and `namespace` of the instance where bare records don't say it.
    """
    known = read(source, id, namespace)
    journals = [journal for journal in known if journal.process == process.name]
    if not journals:
        names = ", ".join(sorted({journal.process for journal in known})) or "none"
        raise UsageError(f"there is no journal of {process.name} to replay; there are journals of: {names}")
    for journal in journals:
        for run in journal.runs():
            check_records(run, process.spec, journal.namespace, journal.id, limits or Limits())
