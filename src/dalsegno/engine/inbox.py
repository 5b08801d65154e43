"""What other processes on the machine want: messages in the store, announced by the doorbell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.requests import Reply, Request
from dalsegno.engine.resident import Resident
from dalsegno.engine.residents import last_end
from dalsegno.engine.turns import ChildRefused, word
from dalsegno.errors import StartConflict
from dalsegno.kernel import entries as e
from dalsegno.kernel.calls import WaitCall
from dalsegno.kernel.fault import capture
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import FINAL, Match, Message

if TYPE_CHECKING:
    from dalsegno.engine.node import Node


class Inbox:
    """Reads messages and matched events, at a ring or once a second, and delivers them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wanted = asyncio.Event()
        self._last = 0
        #: what children told instances that were set aside, until those go on
        self._kept: dict[tuple[str, str], list[Message]] = {}
        self._again: list[Message] = []
        self._looked_again: set[int] = set()
        #: how often instances that were set aside went on
        self._resumptions = 0
        node.store.on_ring(self._wanted.set)

    def look(self) -> None:
        """There may be something."""
        self._wanted.set()

    def goes_on(self, namespace: str, id: str) -> None:
        """An instance that was set aside runs again: what came for it meanwhile can be delivered."""
        self._resumptions += 1
        self._again += self._kept.pop((namespace, id), [])
        self._wanted.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._node.rung(self._wanted)
            await self.deliver()

    async def deliver(self) -> None:
        """Read what is there and hand it on."""
        again, self._again = self._again, []
        for message in again:
            await self._handle(message)
        while True:
            messages = await self._node.store.messages(self._last)
            for message in messages:
                self._last = message.position
                await self._handle(message)
            if len(messages) < 1000:
                break
        found = await self._node.store.matches()
        if found:
            self._node.loop.call_soon(self.matched, found)

    def matched(self, found: list[Match]) -> None:
        """Events met waits: deliver them."""
        for match in found:
            reach("event.before")
            self._node.waking.wake(match.instance, lambda resident, m=match: self._receive(resident, m))  # type: ignore[misc]

    def _receive(self, resident: Resident, match: Match) -> None:
        if resident.held:
            resident.queue.append(lambda: self._receive(resident, match))
            return
        wait = resident.execution.waits.get(match.operation)
        if resident.paused or resident.gone or wait is None or not _meets(match, wait):
            return
        turns = self._node.turns
        turns.unwait(resident, match.operation)
        entry = e.EventReceived(match.operation, match.event_id, match.position, msgspec.Raw(match.payload))
        turns.advance(resident, entry)
        reach("event.appended")

    async def _handle(self, message: Message) -> None:
        reach("message.before")
        if message.verb == "child_ended":
            await self._child_ended(message, message.by, msgspec.json.decode(message.body, type=e.ChildEnded))
            return
        if message.verb == "child_refused":
            await self._child_refused(message, msgspec.json.decode(message.body, type=ChildRefused))
            return
        request = msgspec.json.decode(message.body, type=Request)
        if message.verb == "update":
            # The reply must find its message also after a restart.
            request.update = f"message:{message.position}"
        await self._node.operations.carry_out(
            message.verb, message.namespace, message.instance, request, lambda r: self.reply(message.position, r)
        )

    async def _child_ended(self, message: Message, child: str | None, entry: e.ChildEnded) -> None:
        node, resumptions = self._node, self._resumptions
        await node.settled()
        row = await node.store.find(message.namespace, message.instance)

        def deliver(resident: Resident) -> None:
            if resident.held:
                resident.queue.append(lambda: deliver(resident))
                return
            self._looked_again.discard(message.position)
            self.reply(message.position, Reply())
            node.turns.child_ended(resident, child, entry)
            reach("message.appended")

        if row is None or row.ended_at is not None:
            self.reply(message.position, Reply())
        else:
            node.loop.call_soon(node.waking.wake, row.key, deliver, lambda _: self._keep(message, resumptions))

    def _keep(self, message: Message, resumptions: int) -> None:
        """An instance is set aside, or has just ended or gone on: look once more, then wait until it goes on."""
        name = (message.namespace, message.instance)
        # One that went on between the look and now was told what was kept for it by then, without this.
        if message.position in self._looked_again and resumptions == self._resumptions:
            self._looked_again.discard(message.position)
            self._kept.setdefault(name, []).append(message)
        else:
            self._looked_again.add(message.position)
            self._again.append(message)
            self._wanted.set()

    async def _child_refused(self, message: Message, refused: ChildRefused) -> None:
        """A child's id was taken: by the child itself in an earlier run of this code, or by somebody else."""
        store = self._node.store
        row = await store.find(message.namespace, refused.child)
        mine = (message.instance, refused.operation, refused.input_hash)
        if row is None or (row.parent, row.parent_operation, row.input_hash) != mine:
            error = StartConflict(f"child id {refused.child!r} is taken in namespace {message.namespace!r}")
            await self._child_ended(
                message, refused.child, e.ChildEnded(refused.operation, "failed", error=capture(error))
            )
        elif row.status == "completed":
            ended = last_end(await store.load([row.key]))
            found = e.ChildEnded(refused.operation, ended.outcome, ended.result, ended.error)
            await self._child_ended(message, refused.child, found)
        elif row.status in FINAL:
            # It failed, or was stopped when its parent ended: both go on together.
            request = Request(f"parent {message.instance}", "its parent was retried")
            if not self._node.owns(row):
                batch = self._node.committer.batch
                told = word(message.namespace, message.instance, refused.child, "retry", request, store.now())
                batch.messages.append(told)
                self.reply(message.position, Reply())
                return
            await self._node.operations.carry_out(
                "retry", message.namespace, refused.child, request, lambda r: self.reply(message.position, r)
            )
        else:
            # It runs, and will tell its parent when it ends.
            self.reply(message.position, Reply())

    def reply(self, position: int, reply: Reply) -> None:
        """Write the reply to a message; whoever sent it is rung when it is durable."""
        batch = self._node.committer.batch
        batch.replies.append((position, msgspec.json.encode(reply), self._node.store.now()))
        self._node.committer.touch()


def _meets(match: Match, wait: WaitCall) -> bool:
    """Whether a match was found for this very wait: a former run may have had one of the same name."""
    if match.position <= wait.after:
        return False
    fields = msgspec.json.decode(match.payload)
    wanted = msgspec.json.decode(codec.encode(wait.match))
    return all(name in fields and fields[name] == value for name, value in wanted.items())
