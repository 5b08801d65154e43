"""Which store a verb means: by URL, by the environment, or by the app's own code."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

from cyclopts import Group, Parameter

from dalsegno.app import App
from dalsegno.cli.target import load_app
from dalsegno.errors import UsageError

DEFAULT_STORE = "sqlite:///dalsegno.db"
_GROUP = Group("Where", sort_key=90)

By: TypeAlias = Annotated[
    str | None, Parameter(env_var="DALSEGNO_BY", help="Who asks, for the journal; your login name if not given.")
]
Reason: TypeAlias = Annotated[str | None, Parameter(help="Why, for the journal.")]


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Place:
    """The options that every verb has."""

    store: Annotated[
        str | None,
        Parameter(
            env_var="DALSEGNO_STORE",
            help="The store: sqlite:///orders.db, its file, or memory; dalsegno.db if not given.",
        ),
    ] = None
    app: Annotated[
        str | None,
        Parameter(env_var="DALSEGNO_APP", help="The app, whose store and types are used: module:app or file.py:app."),
    ] = None
    namespace: Annotated[str | None, Parameter(help="The domain whose instances are meant.")] = None
    json: Annotated[bool, Parameter(help="Print JSON: an object, or a line for each thing listed.")] = False

    def open(self) -> App:
        """The app that is meant."""
        if self.app is not None:
            return load_app(self.app).but(store=self.url, namespace=self.namespace)
        return App(self.url or DEFAULT_STORE, namespace=self.namespace or "default")

    @property
    def url(self) -> str | None:
        """The store's URL, where one is given."""
        return None if self.store is None else store_url(self.store)

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[App]:
        """The app's verbs beside the node that runs it, if any does."""
        self._check_named()
        app = self.open()
        async with app.client():
            yield app

    def _check_named(self) -> None:
        if self.store is None and self.app is None and not os.path.exists(DEFAULT_STORE.removeprefix("sqlite:///")):
            raise UsageError(
                "no store is named, and there is no dalsegno.db here: give --store sqlite:///orders.db, set "
                "DALSEGNO_STORE, or give --app module:app"
            )


HERE = Place()

Here: TypeAlias = Annotated[
    str | None, Parameter(help="The store, by URL or file, or the app, module:app or file.py:app.")
]


def place_of(target: Here, place: Place) -> Place:
    """The place of a store or an app that is named by itself; that of the options where none is."""
    if target is None:
        return place
    is_app = target.endswith(".py") or (":" in target and "://" not in target)
    return replace(place, app=target) if is_app else replace(place, store=target)


def store_url(text: str) -> str:
    """A store's URL, also where only the file is named."""
    if text == "memory":
        return "memory://"
    return text if "://" in text else f"sqlite:///{text}"


def who(by: str | None) -> str | None:
    """Who asks."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may know no name for its user.
        return None
