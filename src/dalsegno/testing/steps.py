"""Running steps in a lab: `async` steps as in production, `def` steps in the loop's turn instead of in threads."""

from __future__ import annotations

import asyncio
import contextvars

from dalsegno.engine.jobs import Job, Report
from dalsegno.engine.node import Node
from dalsegno.engine.steps import Steps
from dalsegno.errors import AttemptTimedOut
from dalsegno.kernel.context import current_step
from dalsegno.kernel.points import reach
from dalsegno.testing.stage import Stage


class LabSteps(Steps):
    """The engine's own steps, witnessed and doubled."""

    #: a lab has no workers: a step on a queue runs like any other
    serves_queues = True

    def __init__(self, node: Node, stage: Stage) -> None:
        super().__init__(node)
        self._stage = stage
        threads = TurnSteps(node.loop, node.outcomes.add, stage)
        self._submit.update(thread=threads.submit, process=threads.submit)
        self._cancel.update(thread=threads.cancel, process=threads.cancel)

    def _begin(self, job: Job) -> None:
        job.call.spec = self._stage.wrapped(job.call.spec)
        super()._begin(job)


class TurnSteps:
    """`def` steps without threads: each runs whole, once the delay of its double is over.

    Like a thread, one that has begun can't be stopped: it takes effect although its time-out is reported.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Report, stage: Stage) -> None:
        self._loop = loop
        self._report = report
        self._stage = stage

    def submit(self, job: Job) -> None:
        """Run a step."""
        spec = job.call.spec
        delay = self._stage.delay_seconds(spec)
        context = contextvars.copy_context()
        context.run(current_step.set, job)
        reach("effect.before")
        job.task = self._loop.call_later(delay, self._run, job, context=context)
        if spec.timeout_seconds is not None and spec.timeout_seconds <= delay:
            self._loop.call_later(spec.timeout_seconds, self._expire, job)

    def _run(self, job: Job) -> None:
        call = job.call
        result, failure = None, None
        try:
            result = call.spec.function(*call.args, **call.kwargs)
        except Exception as error:
            failure = error
        if job.task is not None:
            job.task = None
            reach("effect.after")
            self._report(job, result, failure)

    def _expire(self, job: Job) -> None:
        if job.task is not None:
            job.task = None
            seconds = job.call.spec.timeout_seconds
            self._report(
                job, None, AttemptTimedOut(f"{job.describe()} didn't end within {seconds:g} s; its thread goes on")
            )

    def cancel(self, job: Job) -> None:
        """Note that nobody waits for it; one that has begun is left to end."""
        job.cancelled = True
