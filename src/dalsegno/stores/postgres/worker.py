"""A thread with one session; jobs run in order."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from dalsegno.stores.postgres.connection import translate
from dalsegno.stores.postgres.session import Session

Result = TypeVar("Result")

_CLOSE_SECONDS = 2.0


class Worker:
    """Runs jobs on its session, off the loop. The thread begins with the first job."""

    def __init__(self, name: str, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self.session = session
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Callable[[Session], Any], Callable[[Any], None]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[Session], Any], done: Callable[[Any], None]) -> None:
        """Run a job; `done` gets its result or exception, on the loop."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((job, done))

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result = self._result(job)
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:
                # The loop is closed: nobody is left to hear it.
                return

    def _result(self, job: Callable[[Session], Any]) -> Any:
        try:
            return job(self.session)
        except psycopg.Error as error:
            # Only a ring comes here: whatever was wrong, the next one has a new connection.
            self.session.drop()
            translated = translate(error, self.session.address)
            translated.__cause__ = error
            return translated
        except BaseException as error:
            return error

    def call(self, job: Callable[[Session], Result]) -> asyncio.Future[Result]:
        """Run a job and wait for it."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(result: Any) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit(job, done)
        return future

    async def close(self) -> None:
        """Finish the jobs and close the connection; what the server doesn't answer soon is given up."""
        if self._thread is None:
            return
        last = self.call(lambda session: session.drop())
        self._jobs.put(None)
        done, _ = await asyncio.wait([last], timeout=_CLOSE_SECONDS)
        if not done:
            self.session.abandon()
            await asyncio.wait([last], timeout=_CLOSE_SECONDS)
