"""User code by name: `orders.py:order_to_cash`, `shop.orders:app`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dalsegno.app import App
from dalsegno.authoring.process import Process
from dalsegno.errors import DalsegnoError, DefinitionError, UsageError

if TYPE_CHECKING:
    from dalsegno.cli.place import Place


def load(target: str) -> tuple[ModuleType, Any]:
    """A target's module, and the thing in it that is named, `None` where only the module is. Raises `UsageError`."""
    place, _, name = target.partition(":")
    module = _file(place) if place.endswith(".py") else _module(place)
    if not name:
        return module, None
    found = getattr(module, name, None)
    if found is None:
        raise UsageError(f"{place} has no {name!r}; it has {_known(module)}")
    return module, found


def load_app(target: str) -> App:
    """The app of a target: the one that is named, or the only one of the module. Raises `UsageError`."""
    module, found = load(target)
    if found is None:
        return only_app(module) or _refuse(target, "no App: write app = App('sqlite:///orders.db'), or name it")
    return found if isinstance(found, App) else _refuse(target, f"{found!r}, which isn't an App")


def _refuse(target: str, what: str) -> App:
    raise UsageError(f"{target} is {what}")


def only_app(module: ModuleType) -> App | None:
    """The app of a module, where it has one and no more."""
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    return next(iter(apps.values())) if len(apps) == 1 else None


def process_of(module: ModuleType, name: str | None) -> Process[Any, Any]:
    """The process of a module by name, or the only one. Raises `UsageError`."""
    known = {p.name: p for p in vars(module).values() if isinstance(p, Process)}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        asked = "it isn't said which process" if name is None else f"there is no process {name!r}"
        raise UsageError(
            f"{asked} of {module.__name__} to take; it has {', '.join(known) or 'none: decorate one with @process'}"
        )
    return known[name]


def _known(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, (App, Process))]
    return ", ".join(names) or "no App and no @process"


def _module(name: str) -> ModuleType:
    _on_path(os.getcwd())
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        hint = f"; did you mean {name}.py?" if Path(f"{name}.py").exists() else ""
        raise UsageError(f"no module {name!r} here: give module:name or file.py:name{hint}")
    return _executed(name, lambda: importlib.import_module(name))


def _file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {place}")
    name = path.stem
    # By its plain name, so that worker processes and the journal's error types find it again.
    _on_path(str(path.parent))
    known = sys.modules.get(name)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() != path:
        raise UsageError(f"{place} has the name of the module {name!r}, which is loaded already: rename the file")
    return _executed(place, lambda: importlib.import_module(name))


def _on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _executed(place: str, load_it: Any) -> ModuleType:
    try:
        module: ModuleType = load_it()
    except DalsegnoError:
        raise
    except Exception as error:
        # The user's own traceback says where; ours above it would only hide that.
        raise DefinitionError(f"{place} can't be loaded: {_told(error)}") from error
    return module


def _told(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
    return f"{type(error).__name__}: {error}{where if not isinstance(error, SyntaxError) else ''}"


def app_and_process(target: str, name: str | None, place: Place) -> tuple[App, Process[Any, Any]]:
    """What `dalsegno run` is to run, and on which store: the target's where it is an app, else the named one."""
    module, found = load(target)
    if isinstance(found, App):
        app = found.but(store=place.url, namespace=place.namespace)
        return app, process_of(module, None) if name is None else Process(app.process(name))
    if found is not None and not isinstance(found, Process):
        raise UsageError(f"{target} is {found!r}, which is neither a @process nor an App")
    return place.open(), found if found is not None else process_of(module, name)


def app_of(target: str, place: Place) -> App:
    """The app that a node runs: the target's own, or one of the named store with all processes of the module."""
    module, found = load(target)
    app = found if isinstance(found, App) else only_app(module)
    if found is not None and not isinstance(found, (App, Process)):
        raise UsageError(f"{target} is {found!r}, which is neither an App nor a @process")
    return place.open() if app is None else app.but(store=place.url, namespace=place.namespace)


def folder_of(target: str) -> Path:
    """The folder whose sources a target consists of. Raises `UsageError`."""
    place = target.partition(":")[0]
    if place.endswith(".py"):
        return Path(place).resolve().parent
    _on_path(os.getcwd())
    top = importlib.util.find_spec(place.partition(".")[0])
    if top is None or top.origin is None:
        raise UsageError(f"no module {place!r} here: give module:app or file.py:app")
    return Path(top.origin).resolve().parent
