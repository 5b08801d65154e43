"""`dalsegno verify`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from dalsegno.authoring.process import Process
from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.target import app_and_process, load
from dalsegno.cli.values import arguments, bound, pairs
from dalsegno.errors import InvalidValue, UsageError
from dalsegno.kernel.definition import encode_arguments
from dalsegno.testing.verify.kit import python
from dalsegno.testing.verify.kit import verify as run_kit
from dalsegno.testing.verify.plan import Plan, read_strikes
from dalsegno.testing.verify.target import Target

_RUNS = 200


def verify(
    target: Annotated[str, Parameter(help="file.py:process, module:process, or an app and the process's name.")],
    process: Annotated[str | None, Parameter(help="The process, where the target is an app.")] = None,
    /,
    *,
    input: Annotated[
        list[str] | None, Parameter(help="An argument as JSON, name=JSON or @file; {id} in a text is the instance.")
    ] = None,
    input_file: Annotated[
        Path | None, Parameter(help="A file of inputs, each line the list of arguments of one instance as JSON.")
    ] = None,
    runs: Annotated[int | None, Parameter(help="Runs with faults; 200 if neither this nor --seconds is given.")] = None,
    seconds: Annotated[float | None, Parameter(help="Go on for so long.")] = None,
    seed: Annotated[int, Parameter(help="The first run's seed; the next run has the next one.")] = 1,
    faults: Annotated[str | None, Parameter(help="These faults in each run, as a report names them.")] = None,
    double: Annotated[
        list[str] | None, Parameter(help="step=JSON: the step returns this instead of running, and isn't undone.")
    ] = None,
    script: Annotated[
        str | None,
        Parameter(help="file.py:function, async def f(app, run): publishes and answers what the process waits for."),
    ] = None,
    leftovers: Annotated[
        str | None, Parameter(help="file.py:function, def f(id): what an instance left in your world.")
    ] = None,
    patience: Annotated[float, Parameter(help="Seconds in which an instance reaches its end undisturbed.")] = 30.0,
    report: Annotated[Path | None, Parameter(help="Write the report as a page for a browser.")] = None,
    place: Place = HERE,
) -> int:
    """Kill, freeze and starve engines that run your process, and say what came of it: 1 where something broke."""
    plan = Plan(
        target=target,
        process=process,
        inputs=[[]],
        script=script,
        leftovers=leftovers,
        doubles=pairs(double or [], "--double"),
        seed=seed,
        patience_seconds=patience,
    )
    _check_store(place)
    plan.inputs = _inputs(target_of(plan).process, input or [], input_file)
    count = runs if runs is not None else 10**9 if seconds is not None else _RUNS
    strikes = None if faults is None else read_strikes(faults)
    found = run_kit(plan, python("dalsegno.cli.verifying"), runs=count, seconds=seconds, strikes=strikes)
    again = _again()
    if report is not None:
        report.write_text(found.page(again))
    if place.json:
        screen.emit(found.data(again))
    else:
        screen.say("\n".join(found.lines(again)))
    return 0 if found.is_clean else 1


def target_of(plan: Plan) -> Target:
    """The user's code that a plan names. Raises `UsageError`."""
    app, process = app_and_process(plan.target, plan.process, HERE)
    return Target(app, process, _function(plan.script, "--script"), _function(plan.leftovers, "--leftovers"))


def _function(name: str | None, option: str) -> Any:
    if name is None:
        return None
    _, found = load(name)
    if not callable(found):
        raise UsageError(f"{option} {name} is no function: give file.py:function")
    return found


def _check_store(place: Place) -> None:
    if place.url is not None and not place.url.startswith("sqlite:"):
        raise UsageError(f"--store {place.store}: verify runs on SQLite files of its own so far; leave it out")


def _inputs(process: Process[Any, Any], given: list[str], file: Path | None) -> list[list[Any]]:
    found = _given(process, given, file)
    for args in found:
        try:
            process.spec.read_input(encode_arguments(tuple(args), {}, "input"))
        except InvalidValue as error:
            raise UsageError(f"{error}. Give each argument as JSON: a text needs its quotes") from error
    return found


def _given(process: Process[Any, Any], given: list[str], file: Path | None) -> list[list[Any]]:
    if file is None:
        return [bound(process.function, *arguments(given))]
    if given:
        raise UsageError("give --input for one instance or --input-file for several, not both")
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    try:
        found = msgspec.json.decode(f"[{','.join(lines)}]", type=list[list[Any]])
    except msgspec.DecodeError as error:
        raise UsageError(
            f"--input-file {file}: each line is a JSON list of arguments, such as [7, true]: {error}"
        ) from error
    if not found:
        raise UsageError(f"--input-file {file} is empty: give a line for each instance")
    return [bound(process.function, args, {}) for args in found]


def _again() -> str:
    """This command without what says which runs."""
    given = iter(sys.argv[1:])
    kept = []
    for word in given:
        name, found, _ = word.partition("=")
        if name in ("--seed", "--runs", "--seconds", "--faults", "--report"):
            if not found:
                next(given, None)
        else:
            kept.append(word)
    return shlex.join(["dalsegno", *kept])
