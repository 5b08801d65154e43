"""What is verified: the user's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from dalsegno.app import App
from dalsegno.authoring.process import Process


@dataclass(frozen=True)
class Target:
    """An app, one of its processes, and what helps to verify it.

    `script(app, run)` is awaited while an instance runs, in every life of the engine: it publishes what is waited
    for and answers what is asked. `leftovers(id)` says what an instance left behind in the world.
    """

    app: App
    process: Process[..., Any]
    script: Callable[..., Any] | None = None
    leftovers: Callable[..., Any] | None = None

    def app_on(self, url: str, lease_seconds: float) -> App:
        """The user's app on a store of ours, with a lease that is over soon."""
        app = self.app.but(store=url, namespace="default")
        # Being killed again and again is what this is about, and no sign of poison.
        app.limits = msgspec.structs.replace(
            app.limits, lease_seconds=lease_seconds, crashes_before_trial=10**6, crashes_before_parking=10**6
        )
        return app
