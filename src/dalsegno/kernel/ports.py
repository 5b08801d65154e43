"""Where the engine and the stores meet: what a store must do, and the shapes that pass between them.

Times are microseconds since the epoch. `key` is the store's number for an instance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, Protocol

import msgspec

from dalsegno.errors import UsageError
from dalsegno.kernel.work import Queues, WorkRow

Status = Literal["running", "waiting", "paused", "parked", "completed", "failed", "cancelled", "terminated"]
FINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "terminated"})


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as the store lists it; derived from its journal."""

    key: int
    namespace: str
    id: str
    process: str
    version: int
    status: str
    run: int
    base_seq: int
    input_hash: int
    begun: bool
    created_at: int
    updated_at: int
    ended_at: int | None = None
    wake_at: int | None = None
    waiting_for: str | None = None
    error: str | None = None
    annotations: str | None = None
    parent: str | None = None
    parent_operation: str | None = None
    crashes: int = 0
    events_from: int = 0
    #: the epoch of the node that runs it; nobody's where that node has ended
    owner: int = 0


class Start(msgspec.Struct, kw_only=True):
    """A new instance. `entry` is its encoded `Started`; a copy brings a whole journal, and where it stands."""

    namespace: str
    id: str
    process: str
    version: int
    input_hash: int
    entry: bytes
    at: int
    parent: str | None = None
    parent_operation: str | None = None
    #: a message to store in the same commit if the id is taken
    refusal: Message | None = None
    #: of a copy: its row's state where it isn't to begin at once, and what it has annotated
    stands: Change | None = None
    annotations: bytes | None = None
    #: of a copy: the position after which events count for it; none that came before, where it isn't given
    events_from: int | None = None
    tag: Any = None


class EventRow(msgspec.Struct, kw_only=True):
    """A published event, kept for those who wait for it now or soon."""

    namespace: str
    id: str
    event_type: str
    topic: str
    key: str | None
    to: str | None
    payload: bytes
    at: int


class WaitRow(msgspec.Struct, kw_only=True):
    """An open wait of an instance. `match` is the JSON object of wanted field values."""

    instance: int
    operation: str
    namespace: str
    instance_id: str
    event_type: str
    key: str | None
    match: bytes
    after: int


class Match(msgspec.Struct, kw_only=True):
    """A wait and the event that meets it."""

    instance: int
    operation: str
    position: int
    event_id: str
    payload: bytes


class Message(msgspec.Struct, kw_only=True):
    """Something another process of the machine wants of an instance."""

    namespace: str
    instance: str
    verb: str
    body: bytes
    at: int
    by: str | None = None
    position: int = 0
    reply: bytes | None = None
    done_at: int | None = None


class TaskRow(msgspec.Struct, kw_only=True):
    """A question to a person."""

    id: str
    namespace: str
    instance: str
    operation: str
    role: str
    about: bytes
    answer_schema: bytes
    at: int
    title: str | None = None
    due_at: int | None = None
    state: str = "open"
    answer: bytes | None = None
    answered_by: str | None = None
    answered_at: int | None = None


class TaskClosing(msgspec.Struct, kw_only=True):
    """How a question ended: answered or withdrawn."""

    id: str
    namespace: str
    state: str
    at: int
    answer: bytes | None = None
    by: str | None = None


class Heartbeat(msgspec.Struct, kw_only=True):
    """The last sign of a running step, with details it can resume from."""

    instance: int
    step: str
    attempt: int
    at: int
    details: bytes


class Transaction(msgspec.Struct, kw_only=True):
    """Work to do on the store's own connection within the commit; `run` returns the entry to append."""

    instance: int
    seq: int
    kind: str
    run: Callable[[Any], bytes]
    at: int
    tag: Any = None


class Change(msgspec.Struct, kw_only=True):
    """The new state of an instance's row."""

    key: int
    status: str
    at: int
    wake_at: int | None = None
    waiting_for: str | None = None
    error: str | None = None
    ended_at: int | None = None
    run: int = 1
    base_seq: int = 0


class Restart(msgspec.Struct, kw_only=True):
    """An ended instance begins a new run, perhaps of another process: no annotations, no events from before."""

    key: int
    process: str
    version: int
    input_hash: int


class Batch:
    """What one commit writes, all of it or nothing. `rows` is flat: instance, seq, at, kind, entry, …"""

    __slots__ = (
        "after",
        "annotations",
        "asks",
        "began_at",
        "changes",
        "closings",
        "committed",
        "copies",
        "dispatches",
        "dropped_work",
        "ended_work",
        "events",
        "heartbeats",
        "messages",
        "promises",
        "replies",
        "restarts",
        "rows",
        "starts",
        "transactions",
        "unbeats",
        "unwaits",
        "waits",
        "work",
    )

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.starts: list[Start] = []
        self.changes: dict[int, Change] = {}
        self.restarts: list[Restart] = []
        self.annotations: list[tuple[int, bytes]] = []
        self.events: list[EventRow] = []
        self.waits: list[WaitRow] = []
        self.unwaits: list[tuple[int, str]] = []
        self.messages: list[Message] = []
        self.replies: list[tuple[int, bytes, int]] = []
        self.asks: list[TaskRow] = []
        self.closings: list[TaskClosing] = []
        self.heartbeats: list[Heartbeat] = []
        self.unbeats: list[tuple[int]] = []
        self.transactions: list[Transaction] = []
        self.copies: list[tuple[Start, list[tuple[int, int, str, bytes]]]] = []
        #: attempts for workers; a cancelled one withdraws what was handed out for it
        self.work: list[WorkRow] = []
        #: ids of attempts whose outcome is journaled
        self.ended_work: list[int] = []
        #: instances that wait for no attempt any more
        self.dropped_work: list[int] = []
        #: (resident, step call) to run once the batch is durable
        self.dispatches: list[tuple[Any, Any]] = []
        #: called on the node's loop once the batch is durable
        self.after: list[Callable[[], None]] = []
        #: futures that are done once the batch is durable, or fail with the store
        self.promises: list[asyncio.Future[None]] = []
        self.committed = False
        #: when it was handed to the store, by the performance counter
        self.began_at = 0.0

    def add(self, key: int, seq: int, at: int, kind: str, entry: bytes) -> None:
        """Append a journal row."""
        self.rows += (key, seq, at, kind, entry)

    def check_handed_in(self) -> None:
        """Raise `UsageError` where it holds more than those may write who own nothing."""
        if self.rows or self.changes or self.annotations or self.waits or self.unwaits or self.transactions:
            raise UsageError("only the node that owns the instances writes their journals: hand in starts and messages")
        if self.work or self.ended_work or self.dropped_work:
            raise UsageError("only the node that owns the instances hands out their steps: hand in starts and messages")
        if self.replies or self.asks or self.closings or self.heartbeats or self.unbeats or self.restarts:
            raise UsageError("only the node that owns the instances replies and asks: hand in starts and messages")

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.rows
            or self.starts
            or self.changes
            or self.annotations
            or self.events
            or self.waits
            or self.unwaits
            or self.messages
            or self.replies
            or self.asks
            or self.closings
            or self.heartbeats
            or self.transactions
            or self.copies
            or self.restarts
            or self.work
            or self.ended_work
            or self.dropped_work
        )


class Committed(msgspec.Struct):
    """What a commit found. `start_keys` follows `Batch.starts`, `None` where the id was taken."""

    start_keys: list[int | None] = []
    copy_keys: list[int | None] = []
    matches: list[Match] = []
    transactions: list[tuple[bytes | None, BaseException | None]] = []


class Loaded(msgspec.Struct):
    """An instance with the journal of its present run: (seq, at, entry) in order."""

    row: InstanceRow
    journal: list[tuple[int, int, bytes]]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which instances a list shows."""

    namespace: str | None = None
    statuses: tuple[str, ...] = ()
    process: str | None = None
    id_prefix: str | None = None
    where: tuple[tuple[str, Any], ...] = ()
    started_before: int | None = None
    started_after: int | None = None
    parent: str | None = None


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances of a version of a process stand in a status."""

    process: str
    version: int
    status: str
    instances: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances that have not ended stand alike."""

    namespace: str
    process: str
    version: int
    status: str
    #: of parked ones, what they wait for
    why: str | None
    instances: int
    #: when the oldest of them was started
    oldest_at: int
    #: how many of them were due before the given moment, and when the first of those was
    overdue: int = 0
    overdue_since: int | None = None


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the store knows it."""

    epoch: int
    name: str
    host: str
    pid: int
    doorbell: int
    started_at: int
    lease_until: int
    ended_at: int | None = None
    #: JSON: the processes it has code for, as pairs of name and version
    processes: bytes = b"[]"
    #: JSON: its figures at the last renewal of its lease
    figures: bytes = b"{}"


class Store(Queues, Protocol):
    """What the engine needs of a store; `dalsegno.testing.store_suite` says it as tests.

    A store that is `shared` has many owning nodes at once. Each instance belongs to one of them; one whose owner has
    ended is nobody's, and belongs to the first node that finds it: `running`, `suspects`, `due`, `matches` and
    `messages` take over what is nobody's and tell of nothing that is another living node's. A node takes no instance
    it has no code for.
    """

    shared: bool

    @property
    def epoch(self) -> int | None:
        """The number of this node's ownership, `None` beside the owner."""

    async def open(self, *, owner: bool, name: str, lease_seconds: float) -> None:
        """Open as an owning node (fenced by a new epoch), or beside one. Raises `StoreOwned`."""

    async def close(self) -> None:
        """Give the lease back and close."""

    def knows(self, processes: Collection[tuple[str, int]]) -> None:
        """Which processes, by name and version, this node has code for; said before `open` and when it changes."""

    def beside(self) -> Store:
        """A further store object on the same data, not open yet."""

    def now(self) -> int:
        """The store's time."""

    def commit(self, batch: Batch, done: Callable[[Committed | BaseException], None]) -> None:
        """Write a batch; `done` is called on the loop. A batch is fenced by this node's epoch."""

    async def write(self, batch: Batch) -> Committed:
        """Write a batch without being the owner: starts, events and messages only."""

    def enlist(self, tx: Any, batch: Batch) -> tuple[Committed, InstanceRow | None]:
        """Write a batch within a transaction of the user's on this database; it counts when they commit.

        Returns also the instance that has the id of the batch's start, where that is taken. Raises `UsageError` for
        a connection to another database.
        """

    async def renew(self, lease_seconds: float, figures: bytes = b"{}") -> None:
        """Prolong the lease and show the node's figures, a JSON object. Raises `Fenced`."""

    async def release(self, keys: Sequence[int]) -> None:
        """From now on these instances are nobody's."""

    async def load(self, keys: Sequence[int]) -> list[Loaded]:
        """Instances with their journals, in the order of `keys`; missing ones are left out.

        Raises `Fenced` for an owner that lost its lease: it would run what its successor runs.
        """

    async def running(self, after_key: int, limit: int) -> list[int]:
        """Keys of instances in status running, ascending."""

    async def mark_recovered(self, crashes_before_parking: int, crashes_before_trial: int | None = None) -> list[int]:
        """Count a crash against each running instance without progress; keys of those over the bound.

        From `crashes_before_trial` on a crash counts only against instances that were on trial, and only one that was
        on trial alone is over the bound.
        """

    async def suspects(self, crashes: int) -> list[tuple[int, int]]:
        """(key, crashes) of running instances with at least so many crashes, the fewest first."""

    async def put_on_trial(self, keys: Sequence[int]) -> None:
        """From now on a crash is held against these suspects, and no others."""

    async def due(self, until: int, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """(wake_at, key) of waiting instances due until then, after the given pair, in order."""

    async def mismatched(self) -> list[int]:
        """Keys of instances parked because their journal didn't match the code."""

    async def matches(self) -> list[Match]:
        """Waits whose event has been found and not delivered yet."""

    async def messages(self, after: int) -> list[Message]:
        """Messages to be handled, after a position, in order."""

    async def message(self, position: int) -> Message | None:
        """One message, with its reply once it is done."""

    async def heartbeat(self, key: int, step: str) -> bytes | None:
        """The last details a step recorded."""

    async def find(self, namespace: str, id: str) -> InstanceRow | None:
        """The instance of an id."""

    async def listing(self, filter: Filter, after_key: int | None, limit: int) -> list[InstanceRow]:
        """Instances, newest first, below `after_key`."""

    async def counts(self, namespace: str | None) -> dict[str, int]:
        """How many instances stand in each status."""

    async def history(self, key: int, after_seq: int, limit: int) -> list[tuple[int, int, bytes]]:
        """The whole journal of an instance, all runs: (seq, at, entry)."""

    async def tasks(
        self, namespace: str | None, role: str | None, state: str | None, after_at: int, limit: int
    ) -> list[TaskRow]:
        """Questions to people, oldest first."""

    async def task(self, namespace: str, id: str) -> TaskRow | None:
        """One question."""

    async def nodes(self) -> list[NodeInfo]:
        """Nodes, newest first."""

    async def forget_events(self, before: int, limit: int) -> int:
        """Drop events older than that; how many went."""

    def on_ring(self, callback: Callable[[], None]) -> None:
        """Call back on the loop when another process wrote something."""

    def ring(self) -> None:
        """Wake whoever listens: something was written."""

    async def changed(self, timeout_seconds: float) -> None:
        """Wait until somebody rings, or the time is up."""

    async def deployments(self, namespace: str | None) -> list[Deployment]:
        """How many instances stand in each status, by process and version."""

    async def standing(self, overdue_before: int) -> list[Standing]:
        """Instances that have not ended, counted by namespace, process, version, status and why, in that order.

        Cheap enough to ask for every few seconds, however many have ended.
        """


Loop = asyncio.AbstractEventLoop
