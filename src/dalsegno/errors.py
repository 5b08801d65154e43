"""Every error Dalsegno raises, as one tree.

DalsegnoError
├── UsageError                  a call that can't be right: the message names the remedy
│   ├── DefinitionError         a process, step or event is declared wrongly
│   ├── OutsideProcess          a word of process code used outside a process
│   └── ForbiddenInProcess      process code did I/O or read the clock: put it into a step
├── ContractError               a value doesn't fit
│   ├── Unserialisable          it can't be written as JSON
│   ├── InvalidValue            it doesn't match the declared type
│   └── LimitExceeded           it is larger than `Limits` allow
├── StartConflict               the id is taken by a start with another input
├── NotFound                    no such instance, task or step
├── Refused                     an operation the instance's state doesn't allow, or an update it declined
├── StepFailed                  a step's error whose type isn't known here
│   ├── AttemptTimedOut         an attempt outlived its time-out: whether it took effect is unknown
│   ├── WorkerLost              the workers that ran a step of a queue ended one after the other
│   └── OutcomeUnknown          raised by a step that can't tell whether its effect took place
├── ProcessFailed               an instance ended with an error whose type isn't known here
├── ProcessCancelled            an instance ended because it was cancelled
├── ProcessTerminated           an instance was ended by force
├── JournalMismatch             the code asks for something else than the journal holds
└── StoreError                  the store can't go on
    ├── StoreOwned              another engine owns it
    ├── Fenced                  this engine's lease ended; it may write nothing
    ├── StoreLocked             another program holds the database's lock for too long
    ├── StoreFull               no space left
    ├── StoreCorrupt            what is on disk isn't a sound database
    ├── StoreIO                 the disk failed a read, write or sync
    └── MigrationError          the schema isn't one that this version can use
"""

from __future__ import annotations


class DalsegnoError(Exception):
    """The root of every error Dalsegno raises."""


class UsageError(DalsegnoError):
    """A call that can't be right; the message names the remedy."""


class DefinitionError(UsageError):
    """A process, step or event is declared wrongly."""


class OutsideProcess(UsageError):
    """A word of process code was used outside a process."""


class ForbiddenInProcess(UsageError):
    """Process code did I/O, started a thread or read the wall clock."""


class ContractError(DalsegnoError):
    """A value doesn't fit its contract."""


class Unserialisable(ContractError):
    """A value can't be written as JSON."""


class InvalidValue(ContractError):
    """A value doesn't match the declared type."""


class LimitExceeded(ContractError):
    """A value or a count is larger than the limits allow."""


class StartConflict(DalsegnoError):
    """The id is taken by an instance that was started with another process or input."""


class NotFound(DalsegnoError):
    """No such instance, task or step."""


class Refused(DalsegnoError):
    """The instance's state doesn't allow the operation, or it declined an update."""


class StepFailed(DalsegnoError):
    """A step failed with an error whose type isn't known here.

    `type_name` is the original type, `data` its attributes.
    """

    def __init__(self, message: str = "", type_name: str = "", data: object = None) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.data = data


class AttemptTimedOut(StepFailed):
    """An attempt outlived its time-out or stopped heartbeating; its outcome is unknown."""


class WorkerLost(StepFailed):
    """The workers that ran a step of a queue ended one after the other; its outcome is unknown."""


class OutcomeUnknown(StepFailed):
    """Raised by a step that can't tell whether its effect took place."""


class ProcessFailed(DalsegnoError):
    """An instance ended with an error whose type isn't known here."""

    def __init__(self, message: str = "", type_name: str = "", data: object = None) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.data = data


class ProcessCancelled(DalsegnoError):
    """The instance ended because it was cancelled."""


class ProcessTerminated(DalsegnoError):
    """The instance was ended by force, without undo."""


class JournalMismatch(DalsegnoError):
    """The code asks for something else than the journal holds.

    `expected` is what the journal holds, `found` what the code did.
    """

    def __init__(self, expected: str = "", found: str = "") -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found


class StoreError(DalsegnoError):
    """The store can't go on."""


class StoreOwned(StoreError):
    """Another engine owns the store and its lease has not ended."""


class Fenced(StoreError):
    """This engine's lease ended and another one took over: it may write nothing."""


class StoreLocked(StoreError):
    """Another program holds the database's lock for too long."""


class StoreFull(StoreError):
    """No space is left for the store."""


class StoreCorrupt(StoreError):
    """What is on disk isn't a sound database."""


class StoreIO(StoreError):
    """The disk failed a read, a write or a sync."""


class MigrationError(StoreError):
    """The schema isn't one that this version can use."""
