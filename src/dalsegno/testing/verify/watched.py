"""The user's steps, watched: each attempt is told to the witness before it runs. Their code stays as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from dalsegno.app import App
from dalsegno.engine.jobs import Job
from dalsegno.engine.node import Node
from dalsegno.engine.steps import Steps
from dalsegno.kernel.context import current_step
from dalsegno.kernel.definition import ProcessSpec, StepSpec
from dalsegno.kernel.ports import Store
from dalsegno.testing.witness import Asking


class Watch:
    """Stands between the engine and the steps. `doubles`: what some steps return instead of running."""

    def __init__(self, witness: Asking, doubles: dict[str, Any]) -> None:
        self._witness = witness
        self._doubles = doubles
        self._wrapped: dict[StepSpec, StepSpec] = {}

    def begin(self, job: Job) -> None:
        """Put the watched step in its place."""
        spec = job.call.spec
        if spec.executor == "process" and not self._is_doubled(spec):
            # Its worker imports the function by name: what can be seen is that it is sent there.
            self._witness.began(job.key, job.attempt, **_traits(spec))
            return
        job.call.spec = self._wrapped.get(spec) or self._wrap(spec)

    def _is_doubled(self, spec: StepSpec) -> bool:
        return spec.name in self._doubles or spec.name.removeprefix("undo:") in self._doubles

    def _wrap(self, spec: StepSpec) -> StepSpec:
        run = self._running_async(spec) if spec.executor == "async" else self._running(spec)
        executor = "thread" if spec.executor == "process" else spec.executor
        found = replace(spec, function=run, executor=executor, _decode=spec.decode)
        self._wrapped[spec] = self._wrapped[found] = found
        return found

    def _running_async(self, spec: StepSpec) -> Callable[..., Any]:
        @functools.wraps(spec.function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with _Attempt(self._witness, spec):
                if self._is_doubled(spec):
                    return self._doubles.get(spec.name)
                return await spec.function(*args, **kwargs)

        return run

    def _running(self, spec: StepSpec) -> Callable[..., Any]:
        @functools.wraps(spec.function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with _Attempt(self._witness, spec):
                return self._doubles.get(spec.name) if self._is_doubled(spec) else spec.function(*args, **kwargs)

        return run


class _Attempt:
    """One attempt: told to the witness when it begins and when it ends."""

    def __init__(self, witness: Asking, spec: StepSpec) -> None:
        self._witness = witness
        self._spec = spec

    def __enter__(self) -> None:
        self._job = _Noticing(cast("Job", current_step.get()))
        self._witness.began(self._job.job.key, self._job.attempt, **_traits(self._spec))
        self._token = current_step.set(self._job)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        current_step.reset(self._token)
        outcome = "returned" if kind is None else kind.__name__
        self._witness.ended(self._job.job.key, self._job.attempt, outcome=outcome, asked=self._job.asked)


class _Noticing:
    """What a step can ask of itself, noticing whether it asks for its key."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.asked = False

    @property
    def key(self) -> str:
        self.asked = True
        return self.job.key

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)


def _traits(spec: StepSpec) -> dict[str, Any]:
    return {"step": spec.name, "executor": spec.executor, "undo": spec.undo is not None}


class WatchedSteps(Steps):
    """The engine's own steps, watched."""

    def __init__(self, node: Node, watch: Watch) -> None:
        super().__init__(node)
        self._watch = watch

    def _begin(self, job: Job) -> None:
        self._watch.begin(job)
        super()._begin(job)


class WatchedApp(App):
    """A user's `App` whose node runs watched steps."""

    def __init__(self, app: App, watch: Watch) -> None:
        super().__init__(app.url, namespace=app.namespace, processes=app._processes, limits=app.limits)
        self._watch = watch

    def _make_node(self, store: Store, specs: list[ProcessSpec]) -> Node:
        return Node(store, specs, self.limits, steps=partial(WatchedSteps, watch=self._watch))
