"""What other processes on the machine want: messages in the store, announced by the doorbell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from dalsegno.engine.operations import Reply, Request
from dalsegno.engine.resident import Resident
from dalsegno.kernel import entries as e
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import Match, Message

if TYPE_CHECKING:
    from dalsegno.engine.node import Node


class Inbox:
    """Reads messages and matched events, at a ring or once a second, and delivers them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wanted = asyncio.Event()
        self._last = 0
        node.store.on_ring(self._wanted.set)

    def look(self) -> None:
        """There may be something."""
        self._wanted.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._node.limits.poll_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self.deliver()

    async def deliver(self) -> None:
        """Read what is there and hand it on."""
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
        if resident.paused or resident.gone or match.operation not in resident.execution.waits:
            return
        turns = self._node.turns
        turns.unwait(resident, match.operation)
        entry = e.EventReceived(match.operation, match.event_id, match.position, msgspec.Raw(match.payload))
        turns.advance(resident, entry)
        reach("event.appended")

    async def _handle(self, message: Message) -> None:
        reach("message.before")
        if message.verb == "child_ended":
            entry = msgspec.json.decode(message.body, type=e.ChildEnded)
            await self._child_ended(message, entry)
            return
        request = msgspec.json.decode(message.body, type=Request)
        if message.verb == "update":
            # The reply must find its message also after a restart.
            request.update = f"message:{message.position}"
        await self._node.operations.carry_out(
            message.verb, message.namespace, message.instance, request, lambda r: self.reply(message.position, r)
        )

    async def _child_ended(self, message: Message, entry: e.ChildEnded) -> None:
        node = self._node
        await node.settled()
        row = await node.store.find(message.namespace, message.instance)

        def deliver(resident: Resident) -> None:
            if resident.held:
                resident.queue.append(lambda: deliver(resident))
                return
            self.reply(message.position, Reply())
            node.turns.advance(resident, entry)
            reach("message.appended")

        if row is None or row.ended_at is not None:
            self.reply(message.position, Reply())
        else:
            node.loop.call_soon(node.waking.wake, row.key, deliver)

    def reply(self, position: int, reply: Reply) -> None:
        """Write the reply to a message; whoever sent it is rung when it is durable."""
        batch = self._node.committer.batch
        batch.replies.append((position, msgspec.json.encode(reply), self._node.store.now()))
        self._node.committer.touch()
