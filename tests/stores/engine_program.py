"""An engine in a process of its own: it starts instances and says which starts were acknowledged.

    engine_program.py PATH COUNT [--name NAME] [--lease SECONDS] [--file-limit BYTES] [--fail-sync N]
                      [--take-over] [--settle] [--wait]

It prints `owns` once it owns the file, `ack ID` for each start, `settled` when every instance has ended, and
`stopped ERROR: message` when the store stops it.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys

from dalsegno import App, Limits, StoreError, StoreOwned, process, step
from dalsegno.testing import chaos


@step
async def keep(text: str) -> int:
    return len(text)


@process
async def keeping(text: str) -> int:
    return await keep(text)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


async def work(arguments: argparse.Namespace) -> None:
    app = App(f"sqlite:///{arguments.path}", limits=Limits(lease_seconds=arguments.lease), name=arguments.name)
    if arguments.fail_sync:
        # Before the file is opened: files that are open already are not watched.
        chaos.arm(arguments.path, fail_sync=arguments.fail_sync)
    if arguments.take_over:
        await take_over(app)
    async with app:
        say("owns")
        if arguments.file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_limit, arguments.file_limit))
        for number in range(arguments.count):
            run = await app.start(keeping, "x" * 2000, id=f"{arguments.name}-{number}")
            say("ack", run.id)
        if arguments.settle:
            for instance in [found async for found in app.list()]:
                await app.get(instance.id).result()
            say("settled")
        if arguments.wait:
            await app.stopped()


async def take_over(app: App) -> None:
    """Wait for the end of the owner's lease."""
    while True:
        try:
            async with app:
                return
        except StoreOwned as error:
            say("refused", error)
            await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    parser.add_argument("--name", default="engine")
    parser.add_argument("--file-limit", type=int)
    parser.add_argument("--fail-sync", type=int, default=0)
    parser.add_argument("--lease", type=float, default=10.0)
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--settle", action="store_true")
    parser.add_argument("--take-over", action="store_true")
    arguments = parser.parse_args()
    try:
        asyncio.run(work(arguments))
    except StoreError as error:
        say(f"stopped {type(error).__name__}: {error}")
        raise SystemExit(3) from error


if __name__ == "__main__":
    main()
