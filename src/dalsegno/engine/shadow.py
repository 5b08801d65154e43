"""Shadow replay: in development and tests every finished run is replayed and compared."""

from __future__ import annotations

import asyncio

from dalsegno.engine.residents import records
from dalsegno.errors import JournalMismatch
from dalsegno.kernel import entries as e
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import Loaded


async def replayed(loaded: Loaded, spec: ProcessSpec, limits: Limits) -> None:
    """`check_replay` from within a task: process code must not be entered from one, so a callback does it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def check() -> None:
        try:
            check_replay(loaded, spec, limits)
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    loop.call_soon(check)
    await done


def check_replay(loaded: Loaded, spec: ProcessSpec, limits: Limits) -> None:
    """Replay a stored run through the code. Raises `JournalMismatch` where it says anything else."""
    check_records(records(loaded.journal), spec, loaded.row.namespace, loaded.row.id, limits)


def check_records(journal: list[e.Record], spec: ProcessSpec, namespace: str, id: str, limits: Limits) -> None:
    """Replay the records of one run through the code. Raises `JournalMismatch` where it says anything else."""
    execution = Execution(spec, namespace, id, limits)
    try:
        execution.replay(journal)
        ending = next((r.entry for r in reversed(journal) if isinstance(r.entry, e.ENDINGS)), None)
        forced = isinstance(ending, e.Ended) and ending.outcome == "terminated"
        said = [item for item in execution.out if isinstance(item, e.ENDINGS)]
        if ending is not None and not forced and execution.ended is None:
            raise JournalMismatch(f"the end ({e.kind(ending)})", f"{spec.name} still waiting")
        if said and not forced:
            raise JournalMismatch("no end yet" if ending is None else e.kind(ending), e.kind(said[0]))
    finally:
        execution.drop()
