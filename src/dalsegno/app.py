"""The composition root: store, node and gateway put together. The only file that knows everyone."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, get_args, overload

import msgspec

from dalsegno.archive import Archived, copy_of
from dalsegno.authoring.declared import declared
from dalsegno.authoring.process import Process
from dalsegno.authoring.steps import served
from dalsegno.contracts import codec
from dalsegno.contracts.event import AnyEvent
from dalsegno.engine.node import Node
from dalsegno.engine.requests import Request
from dalsegno.engine.shadow import replayed
from dalsegno.engine.starts import IfExists
from dalsegno.engine.worker import Worker, check_concurrency
from dalsegno.errors import DefinitionError, NotFound, UsageError
from dalsegno.gateway import Beside, Gateway, InProcess, living_nodes, publish_within, start_within
from dalsegno.instance import Instance, Run, Task, instance_of, task_of
from dalsegno.kernel.definition import Arguments, ProcessSpec, check_id, encode_arguments
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import Filter, NodeInfo, Store
from dalsegno.kernel.work import Queue, QueueDepth, QueueRow, check_queue
from dalsegno.observe.deployments import Version, versions_of
from dalsegno.observe.view import View, view_of
from dalsegno.stores import open_store

P = ParamSpec("P")
T = TypeVar("T")

_PAGE = 500
_POLICIES = get_args(IfExists)
_NAMESPACE = re.compile(r"[\w.-]{1,100}")


class App:
    """Processes on a store.

    Parameters: `store`, such as "sqlite:///orders.db", or a store; `namespace`, the domain whose instances the verbs
    mean; `processes` the node runs (every declared one where none are given); `limits`; `name` of the node;
    `shadow_replay`, replay every finished run and compare, for development and tests; `queues`, what queues of steps
    allow, which holds for all workers once a node has begun.

    `async with app:` runs a node: it owns the store, goes on with what was running, and runs new instances.
    `async with app.client():` is the same verbs beside a node that runs in another process.
    `async with app.worker("gpu"):` runs the steps of a queue.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        namespace: str = "default",
        processes: Iterable[Process[Any, Any]] | None = None,
        limits: Limits | None = None,
        name: str | None = None,
        shadow_replay: bool = False,
        queues: Iterable[Queue] = (),
    ) -> None:
        self.url = store if isinstance(store, str) else str(store)
        self._store = store
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise UsageError(f"namespace={namespace!r}: give 1 to 100 letters, digits, '.', '-' or '_'")
        self.namespace = namespace
        self.limits = limits or Limits()
        self._processes = None if processes is None else list(processes)
        self._name = name
        self._shadow_replay = shadow_replay
        self._queues = list(queues)
        self._shadow_failures: Sequence[str] = []
        self._gateway: Gateway | None = None
        self._node: Node | None = None

    def __repr__(self) -> str:
        return f"<App {self.url}>"

    def but(
        self, *, store: str | Store | None = None, namespace: str | None = None, shadow_replay: bool | None = None
    ) -> App:
        """This app on another store, in another namespace, or with shadow replay; it is opened by itself."""
        return App(
            self._store if store is None else store,
            namespace=self.namespace if namespace is None else namespace,
            processes=self._processes,
            limits=self.limits,
            name=self._name,
            shadow_replay=self._shadow_replay if shadow_replay is None else shadow_replay,
            queues=self._queues,
        )

    # -- life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> App:
        self._refuse_open()
        specs = [process.spec for process in (self._processes if self._processes is not None else declared())]
        node = self._make_node(open_store(self._store), specs)
        await node.open()
        self._node = node
        self._shadow_failures = node.shadow_failures
        self._gateway = InProcess(node)
        if self._queues:
            await node.store.set_queues([self._queue_row(queue) for queue in self._queues])
        return self

    def _queue_row(self, queue: Queue) -> QueueRow:
        return QueueRow(
            namespace=self.namespace,
            name=queue.name,
            concurrency=queue.concurrency,
            concurrency_per_key=queue.concurrency_per_key,
            per_second=queue.per_second,
        )

    def _make_node(self, store: Store, specs: list[ProcessSpec]) -> Node:
        return Node(store, specs, self.limits, name=self._name, shadow_replay=self._shadow_replay)

    async def __aexit__(self, *_: object) -> None:
        node, self._node, self._gateway = self._node, None, None
        if node is not None:
            await node.close()
            if node.failure is not None:
                raise node.failure

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[App]:
        """Use the verbs beside a node that runs in another process on this machine."""
        self._refuse_open()
        store = open_store(self._store)
        await store.open(owner=False, name=self._name or "client", lease_seconds=0)
        self._gateway = Beside(store, self.limits)
        try:
            yield self
        finally:
            self._gateway = None
            await store.close()

    @contextlib.asynccontextmanager
    async def worker(self, *queues: str, concurrency: int = 10, name: str | None = None) -> AsyncIterator[Worker]:
        """Run steps of these queues here, so many at once, beside a node in this process or in another.

        At the end it claims nothing more and lets running steps end; what takes longer than half a minute is given
        back, for other workers to do again. Raises `DefinitionError` where two steps of one name are on a queue.
        """
        if not queues:
            raise UsageError('app.worker() serves nothing: name a queue, as in app.worker("gpu")')
        specs = served([check_queue(queue) for queue in queues])
        store = (open_store(self._store) if self._node is None else self._node.store).beside()
        worker = Worker(
            store,
            self.namespace,
            queues,
            specs,
            self.limits,
            concurrency=check_concurrency(concurrency),
            name=name or self._name,
        )
        await store.open(owner=False, name=worker.name, lease_seconds=0)
        try:
            await worker.open()
            try:
                yield worker
            finally:
                await worker.close()
        finally:
            await store.close()

    async def queues(self) -> Sequence[QueueDepth]:
        """What stands in the queues: how much is ready and since when, and how much runs."""
        return await self._open().store.queue_depths(self.namespace)

    def _refuse_open(self) -> None:
        if self._gateway is not None:
            raise UsageError(f"{self!r} is open already")

    def _open(self) -> Gateway:
        if self._gateway is None:
            raise UsageError(f"{self!r} isn't open: write `async with app:` around it, or `async with app.client():`")
        return self._gateway

    async def stopped(self) -> None:
        """Wait until the node stops by itself. Raises what stopped it, such as `Fenced` or `StoreFull`."""
        if self._node is None:
            raise UsageError(f"{self!r} runs no node here")
        await self._node.stopped()

    @property
    def shadow_failures(self) -> Sequence[str]:
        """What shadow replay found: runs whose replay said something else than the live run."""
        return self._shadow_failures

    # -- verbs -------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        process: Process[P, T],
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "same",
        by: str | None = None,
        tx: Any = None,
        **kwargs: Any,
    ) -> Run[T]: ...
    @overload
    async def start(
        self,
        process: str,
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "same",
        by: str | None = None,
        tx: Any = None,
        **kwargs: Any,
    ) -> Run[Any]: ...
    async def start(
        self,
        process: Process[P, T] | str,
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "same",
        by: str | None = None,
        tx: Any = None,
        **kwargs: Any,
    ) -> Run[T]:
        """Start an instance; durable when this returns.

        Parameters: `process` and its arguments; `id`, by which a second start is the same one; `if_exists`: "same"
        takes the existing instance if process and input are equal and raises `StartConflict` otherwise, "return"
        takes it in any case, "fail" raises, "restart" begins a new run of an ended one; `tx`, a connection to the
        store's own database: the instance exists once that transaction is committed, and begins within a second.
        Raises `ContractError` for arguments that have no JSON form, don't fit or are too large.
        """
        gateway = self._open()
        spec = self._spec(process)
        if if_exists not in _POLICIES:
            raise UsageError(f"if_exists={if_exists!r}: choose 'same', 'return', 'fail' or 'restart'")
        name = check_id(id) if id is not None else str(uuid.uuid4())
        data, prepared = self._input(spec, args, kwargs)
        if tx is not None:
            if self._node is not None:
                self._node.definitions.add(spec)
            start_within(gateway.store, tx, spec, self.namespace, name, data, if_exists, by)
            return Run(self._open, self.namespace, name, spec.result_type, None)
        key = await gateway.start(spec, self.namespace, name, data, prepared, if_exists, by)
        return Run(self._open, self.namespace, name, spec.result_type, key)

    def _input(self, spec: ProcessSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, Arguments]:
        data = encode_arguments(args, kwargs, f"input of {spec.name}")
        codec.bounded(data, self.limits.payload_bytes, f"input of {spec.name}")
        # A start that could never run is refused here, not journaled.
        return data, spec.read_input(data)

    def _spec(self, process: Process[Any, Any] | str) -> ProcessSpec:
        if isinstance(process, Process):
            return process.spec
        if isinstance(process, str):
            return self.process(process)
        raise DefinitionError(f"start() takes a @process or its name, not {process!r}")

    def process(self, name: str, version: int | None = None) -> ProcessSpec:
        """The declared process of a name, its newest version where none is named. Raises `DefinitionError`."""
        known = self._processes if self._processes is not None else list(declared())
        found = [p.spec for p in known if p.spec.name == name and version in (None, p.spec.version)]
        if not found:
            names = ", ".join(sorted({p.spec.name for p in known})) or "none"
            raise DefinitionError(f"no process {name!r} is declared here; known: {names}")
        return max(found, key=lambda spec: spec.version)

    @overload
    def get(self, id: str, result_type: type[T]) -> Run[T]: ...
    @overload
    def get(self, id: str, result_type: Any = Any) -> Run[Any]: ...
    def get(self, id: str, result_type: Any = Any) -> Run[Any]:
        """A handle to an existing instance."""
        return Run(self._open, self.namespace, id, result_type, None)

    async def restore(self, archived: Archived) -> Run[Any]:
        """Take in an instance that was exported: one that ended as it was, another one goes on from where it stood.

        Raises `Refused` where its id is taken.
        """
        gateway = self._open()
        start, journal = copy_of(archived, self.namespace, gateway.store.now())
        await gateway.copy(start, journal)
        return self.get(start.id)

    async def publish(self, event: AnyEvent, *, to: str | None = None, id: str | None = None, tx: Any = None) -> str:
        """Publish an event to the instances that wait for it, now or soon; returns its id, durable by then.

        Parameters: `to`, the id of the only instance that is to get it; `id` of the event, by which publishing it
        again, as a webhook that calls twice does, changes nothing; `tx`, a connection to the store's own database:
        the event is published when that transaction is committed.
        """
        gateway = self._open()
        if tx is not None:
            return publish_within(gateway.store, self.limits, tx, self.namespace, event, to, id)
        return await gateway.publish(self.namespace, event, to, id)

    async def tasks(self, role: str | None = None, state: str | None = "open", limit: int = 1000) -> Sequence[Task]:
        """Questions to people, oldest first."""
        rows = await self._open().store.tasks(self.namespace, role, state, 0, limit)
        return [task_of(row) for row in rows]

    async def answer(self, task_id: str, answer: Any, by: str | None = None) -> None:
        """Answer a question. Raises `NotFound`, `InvalidValue` (it stays open then), `Refused` once it is closed."""
        gateway = self._open()
        task = await gateway.store.task(self.namespace, task_id)
        if task is None:
            raise NotFound(f"no task {task_id!r} in namespace {self.namespace!r}")
        data = codec.bounded(codec.encode(answer, "answer"), self.limits.payload_bytes, "answer")
        request = Request(by, task=task_id, answer=msgspec.Raw(data))
        await gateway.request("answer", self.namespace, task.instance, request)

    async def list(
        self,
        *,
        status: str | Iterable[str] | None = None,
        process: str | None = None,
        where: dict[str, Any] | None = None,
        id_prefix: str | None = None,
        older_than: timedelta | None = None,
        newer_than: timedelta | None = None,
        parent: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Instance]:
        """Instances, newest first, by status, process, annotations (`where`), id prefix, age, parent."""
        store = self._open().store
        wanted = self._filter(store, status, process, where, id_prefix, older_than, newer_than, parent)
        after: int | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            rows = await store.listing(wanted, after, size)
            for row in rows:
                yield instance_of(row)
            if len(rows) < size:
                return
            after = rows[-1].key
            left = None if left is None else left - len(rows)

    def _filter(
        self,
        store: Store,
        status: str | Iterable[str] | None,
        process: str | None,
        where: dict[str, Any] | None,
        id_prefix: str | None,
        older_than: timedelta | None,
        newer_than: timedelta | None,
        parent: str | None,
    ) -> Filter:
        def ago(age: timedelta | None) -> int | None:
            return None if age is None else store.now() - int(age.total_seconds() * 1e6)

        statuses = (status,) if isinstance(status, str) else tuple(status or ())
        return Filter(
            namespace=self.namespace,
            statuses=statuses,
            process=process,
            id_prefix=id_prefix,
            where=tuple((where or {}).items()),
            started_before=ago(older_than),
            started_after=ago(newer_than),
            parent=parent,
        )

    async def counts(self) -> dict[str, int]:
        """How many instances stand in each status."""
        return await self._open().store.counts(self.namespace)

    async def replay(self, id: str) -> None:
        """Replay an instance's stored run through the code declared here.

        Raises `JournalMismatch` with expected and found, `DefinitionError` where there is no such code, `NotFound`.
        """
        store = self._open().store
        row = await store.find(self.namespace, id)
        if row is None:
            raise NotFound(f"no instance {id!r} in namespace {self.namespace!r}")
        spec = self.process(row.process, row.version)
        await replayed((await store.load([row.key]))[0], spec, self.limits)

    async def nodes(self, *, living: bool = False) -> Sequence[NodeInfo]:
        """Nodes of the store, newest first; with `living`, those that hold their lease."""
        store = self._open().store
        return await living_nodes(store) if living else await store.nodes()

    async def deployments(self) -> Sequence[Version]:
        """Versions of processes, in all namespaces: what is under way, which nodes have the code, which can go."""
        return await versions_of(self._open().store)

    async def view(self) -> View:
        """The store at this moment, in all namespaces: nodes with their figures, instances, queues, what is stuck."""
        return await view_of(self._open().store)

    async def changed(self, timeout_seconds: float) -> None:
        """Wait, beside a node, until something was written to the store or the time is up; a hint, no promise."""
        await self._open().store.changed(timeout_seconds)
