"""Durable business processes in plain async Python.

A process is an `async def` function; a step is a function it calls. What a step returned is journaled once; after
a crash the process is replayed from its journal and goes on from the sign.
"""

from dalsegno.app import App
from dalsegno.authoring.process import continue_as_new, process, start
from dalsegno.authoring.step import step, transaction
from dalsegno.authoring.words import (
    annotate,
    ask,
    changed,
    heartbeat,
    now,
    on,
    publish,
    random,
    saga,
    step_key,
    uuid,
    wait_for,
)
from dalsegno.contracts.event import Event
from dalsegno.errors import (
    AttemptTimedOut,
    ContractError,
    DalsegnoError,
    DefinitionError,
    Fenced,
    ForbiddenInProcess,
    InvalidValue,
    JournalMismatch,
    LimitExceeded,
    MigrationError,
    NotFound,
    OutcomeUnknown,
    OutsideProcess,
    ProcessCancelled,
    ProcessFailed,
    ProcessTerminated,
    Refused,
    StartConflict,
    StepFailed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreIO,
    StoreLocked,
    StoreOwned,
    Unserialisable,
    UsageError,
    WorkerLost,
)
from dalsegno.instance import Instance, Run, Task
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.retry import Retry
from dalsegno.kernel.work import Queue

__version__ = "0.1.0"

__all__ = [
    "App",
    "AttemptTimedOut",
    "ContractError",
    "DalsegnoError",
    "DefinitionError",
    "Event",
    "Fenced",
    "ForbiddenInProcess",
    "Instance",
    "InvalidValue",
    "JournalMismatch",
    "LimitExceeded",
    "Limits",
    "MigrationError",
    "NotFound",
    "OutcomeUnknown",
    "OutsideProcess",
    "ProcessCancelled",
    "ProcessFailed",
    "ProcessTerminated",
    "Queue",
    "Refused",
    "Retry",
    "Run",
    "StartConflict",
    "StepFailed",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreIO",
    "StoreLocked",
    "StoreOwned",
    "Task",
    "Unserialisable",
    "UsageError",
    "WorkerLost",
    "annotate",
    "ask",
    "changed",
    "continue_as_new",
    "heartbeat",
    "now",
    "on",
    "process",
    "publish",
    "random",
    "saga",
    "start",
    "step",
    "step_key",
    "transaction",
    "uuid",
    "wait_for",
]
