"""Setting instances aside: parked for want of the right code or of help, and taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalsegno.engine.resident import Resident
from dalsegno.engine.residents import records
from dalsegno.engine.turns import MISMATCH
from dalsegno.errors import DalsegnoError, JournalMismatch
from dalsegno.kernel import entries as e
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.ports import Loaded

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

HELP = "an operator: resume, retry, cancel or terminate it"


class Parking:
    """Parks instances, and lets them go on."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def replay(self, resident: Resident, item: Loaded) -> bool:
        """Replay a loaded instance; false where it had to be parked."""
        try:
            journal = records(item.journal)
            resident.execution.replay(journal, begun=item.row.begun, crashed=item.row.status == "running")
        except JournalMismatch as mismatch:
            self.park_mismatch(resident, mismatch)
            return False
        except DalsegnoError as error:
            self.park(resident, str(error))
            return False
        return True

    def park_mismatch(self, resident: Resident, mismatch: JournalMismatch) -> None:
        """The code doesn't fit the journal: set the instance aside until the right code is there."""
        remark = e.Parked(f"journal mismatch: {mismatch}", mismatch.expected, mismatch.found)
        self._park(resident, remark, MISMATCH)

    def park(self, resident: Resident, reason: str) -> None:
        """Set an instance aside for an operator."""
        self._park(resident, e.Parked(reason), HELP)

    def _park(self, resident: Resident, remark: e.Parked, waiting_for: str) -> None:
        node = self._node
        if resident.gone:
            return
        node.log.error("instance %r (%s) is parked: %s", resident.id, resident.execution.spec.name, remark.reason)
        for job in list(resident.jobs.values()):
            if job is not None:
                node.steps.cancel(job)
        node.turns.remark(resident, remark)
        node.turns.change(resident, "parked", node.store.now(), waiting_for=waiting_for, error=remark.reason)
        resident.gone = True
        self.leave(resident)

    def leave_if_quiet(self, resident: Resident) -> None:
        """A paused instance leaves memory once its running steps have ended."""
        running = [job for job in resident.jobs.values() if job is not None]
        if resident.paused and not running and not resident.gone:
            resident.gone = True
            self.leave(resident)

    def leave(self, resident: Resident) -> None:
        """Leave memory. Until the last entries are on disk nobody may load the instance again."""
        self._node.committer.batch.after.append(lambda: self._node.residents.remove(resident))
        self._node.committer.touch()
        resident.execution.drop()

    async def try_again(self, key: int) -> None:
        """Replay an instance that was parked for want of the right code; it goes on if that is here now."""
        item = (await self._node.store.load([key]))[0]
        self._node.loop.call_soon(self._node.guarded, self._look, item)

    def _look(self, item: Loaded) -> None:
        row = item.row
        spec = self._node.definitions.find(row.process, row.version)
        if spec is None:
            return
        execution = Execution(spec, row.namespace, row.id, self._node.limits)
        try:
            execution.replay(records(item.journal))
        except DalsegnoError as error:
            self._node.log.warning("instance %r stays parked: %s", row.id, error)
        else:
            self._node.stored.go_on(row, e.Resumed(reason="its journal fits the code again"))
        finally:
            execution.drop()
