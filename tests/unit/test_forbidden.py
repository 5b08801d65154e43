"""Process code that does I/O, looks at the clock or throws dice is refused, with the remedy in the message.

By name when it is declared (the lint), at the call when it runs (the guard), and by the loop whose methods for I/O
refuse. Steps are left alone.
"""
# ruff: noqa: ASYNC220, ASYNC221, ASYNC230, ASYNC250, ASYNC251

import asyncio
import datetime as dt
import logging
import os
import random
import secrets
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
import zoneinfo
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep

import pytest

import dalsegno
from dalsegno import DefinitionError, ForbiddenInProcess, Limits, continue_as_new, now, process, step

# -- by name, at declaration ---------------------------------------------------------------------------


async def looks_at_the_time() -> float:
    return time.time()


async def measures() -> float:
    return time.perf_counter()


async def takes_now() -> datetime:
    return datetime.now()


async def takes_now_by_module() -> datetime:
    return dt.datetime.now(dt.UTC)


async def takes_today() -> dt.date:
    return dt.date.today()


async def throws_dice() -> float:
    return random.random()


async def shuffles() -> None:
    random.shuffle([1, 2])


async def takes_a_token() -> str:
    return secrets.token_hex()


async def makes_a_uuid() -> uuid.UUID:
    return uuid.uuid4()


async def takes_entropy() -> bytes:
    return os.urandom(3)


async def reads_the_environment() -> str:
    return os.environ["HOME"]


async def gets_the_environment() -> str | None:
    return os.getenv("HOME")


async def opens_a_file() -> str:
    with open("/etc/hostname") as file:
        return file.read()


async def asks_at_the_console() -> str:
    return input()


async def holds_the_thread() -> None:
    time.sleep(1)


async def holds_the_thread_by_a_short_name() -> None:
    sleep(1)


async def runs_a_program() -> None:
    subprocess.run(["true"])


async def opens_a_program() -> None:
    subprocess.Popen(["true"])


async def runs_a_shell() -> None:
    os.system("true")


async def opens_a_socket() -> None:
    socket.socket()


async def resolves_a_name() -> object:
    return socket.getaddrinfo("localhost", 80)


async def opens_a_database() -> None:
    sqlite3.connect("x.db")


async def starts_a_thread() -> None:
    threading.Thread(target=print).start()


async def leaves_for_a_thread() -> None:
    await asyncio.to_thread(print)


async def opens_a_connection() -> None:
    await asyncio.open_connection("localhost", 80)


async def hides_it_in_a_function_inside() -> list[float]:
    def inside() -> float:
        return time.time()

    return [inside() for _ in range(2)]


FORBIDDEN_BY_NAME = [
    (looks_at_the_time, "time.time", "now()"),
    (measures, "time.perf_counter", "now()"),
    (takes_now, "datetime.datetime.now", "now()"),
    (takes_now_by_module, "datetime.datetime.now", "now()"),
    (takes_today, "datetime.date.today", "now()"),
    (throws_dice, "random.random", "random()"),
    (shuffles, "random.shuffle", "random()"),
    (takes_a_token, "secrets.token_hex", "random()"),
    (makes_a_uuid, "uuid.uuid4", "uuid()"),
    (takes_entropy, "os.urandom", "random()"),
    (reads_the_environment, "os.environ", "@step"),
    (gets_the_environment, "os.getenv", "@step"),
    (opens_a_file, "open", "@step"),
    (asks_at_the_console, "input", "ask()"),
    (holds_the_thread, "time.sleep", "asyncio.sleep()"),
    (holds_the_thread_by_a_short_name, "time.sleep", "asyncio.sleep()"),
    (runs_a_program, "subprocess.run", "@step"),
    (opens_a_program, "subprocess.Popen", "@step"),
    (runs_a_shell, "os.system", "@step"),
    (opens_a_socket, "socket.socket", "@step"),
    (resolves_a_name, "socket.getaddrinfo", "@step"),
    (opens_a_database, "sqlite3.connect", "@step"),
    (starts_a_thread, "threading.Thread", "@step"),
    (leaves_for_a_thread, "asyncio.to_thread", "@step"),
    (opens_a_connection, "asyncio.open_connection", "@step"),
    (hides_it_in_a_function_inside, "time.time", "now()"),
]


@pytest.mark.parametrize(
    ("function", "name", "remedy"), FORBIDDEN_BY_NAME, ids=[case[0].__name__ for case in FORBIDDEN_BY_NAME]
)
def test_a_process_that_names_what_differs_on_replay_is_refused_at_declaration(function, name, remedy):
    with pytest.raises(DefinitionError) as refused:
        process(function)
    assert function.__name__ in str(refused.value)
    assert name in str(refused.value)
    assert remedy in str(refused.value)
    assert "line " in str(refused.value)


async def uses_dates() -> str:
    return f"{datetime(2024, 1, 1) + timedelta(days=3)} {dt.date(2024, 1, 1).isoformat()}"


async def reads_a_uuid() -> uuid.UUID:
    return uuid.UUID("12345678-1234-5678-1234-567812345678")


async def makes_a_seeded_generator() -> float:
    return random.Random(7).random()


async def uses_the_words() -> str:
    return f"{now()} {dalsegno.random().random()} {dalsegno.uuid()}"


async def catches_errors_of_such_modules() -> bool:
    try:
        await asyncio.sleep(0)
    except (subprocess.CalledProcessError, sqlite3.IntegrityError, socket.gaierror):
        return False
    return True


async def names_things_like_the_forbidden() -> int:
    open = 3
    time = {"time": 1}
    return open + time["time"]


async def asks_the_kind_of_a_value(value: object) -> bool:
    return isinstance(value, sqlite3.Row | subprocess.CompletedProcess)


async def handles_paths() -> str:
    return str(Path("/a") / "b") + os.path.join("a", "b") + os.sep


async def sleeps_and_logs() -> None:
    logging.getLogger("x").info("at %s", now())
    await asyncio.sleep(1)


class Clock:
    def time(self) -> int:
        return 3


async def has_its_own_time() -> int:
    return Clock().time()


@pytest.mark.parametrize(
    "function",
    [
        uses_dates, reads_a_uuid, makes_a_seeded_generator, uses_the_words, catches_errors_of_such_modules,
        names_things_like_the_forbidden, asks_the_kind_of_a_value, handles_paths, sleeps_and_logs, has_its_own_time,
    ],
    ids=lambda function: function.__name__,
)  # fmt: skip
def test_what_is_the_same_on_every_replay_is_not_refused(function):
    process(function)


def test_the_check_by_name_can_be_switched_off():
    assert process(lint=False)(looks_at_the_time).name == "looks_at_the_time"


# -- at the call, at run time --------------------------------------------------------------------------
# Behind a function of its own the lint can't see it.


def open_for_reading() -> None:
    with open("/etc/hostname"):
        pass


def open_for_writing() -> None:
    with open("should-not-exist.txt", "w"):
        pass


def read_a_path() -> None:
    Path("/etc/hostname").read_text()


def list_a_folder() -> None:
    os.listdir(".")


def remove_a_file() -> None:
    os.remove("should-not-exist.txt")


def open_a_socket() -> None:
    socket.socket().close()


def resolve() -> None:
    socket.getaddrinfo("localhost", 80)


def run_a_program() -> None:
    subprocess.run(["true"], check=True)


def run_a_shell() -> None:
    os.system("true")


def hold_the_thread() -> None:
    time.sleep(0.001)


def open_a_database() -> None:
    sqlite3.connect(":memory:").close()


def start_a_thread() -> None:
    threading.Thread(target=int).start()


AT_RUN_TIME = [
    (open_for_reading, "open of '/etc/hostname'", "@step"),
    (open_for_writing, "open of 'should-not-exist.txt'", "@step"),
    (read_a_path, "open of '/etc/hostname'", "@step"),
    (list_a_folder, "os.listdir", "@step"),
    (remove_a_file, "os.remove", "@step"),
    (open_a_socket, "socket.__new__", "@step"),
    (resolve, "socket.getaddrinfo", "@step"),
    (run_a_program, "subprocess.Popen", "@step"),
    (run_a_shell, "os.system", "@step"),
    (hold_the_thread, "time.sleep", "asyncio.sleep()"),
    (open_a_database, "sqlite3.connect", "@step"),
    pytest.param(
        start_a_thread,
        "start_new_thread",
        "@step",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="Python tells of threads from 3.12 on"),
    ),
]


@pytest.mark.parametrize(("call", "name", "remedy"), AT_RUN_TIME, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_process_that_does_io_fails_at_the_call(open_app, call, name, remedy):
    @process
    async def does_it() -> None:
        call()

    async with open_app() as app:
        with pytest.raises(ForbiddenInProcess) as refused:
            await (await app.start(does_it, id="one")).result()
    assert name in str(refused.value)
    assert remedy in str(refused.value)
    assert "instance 'one' (does_it)" in str(refused.value)
    assert not Path("should-not-exist.txt").exists()


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
@pytest.mark.parametrize("call", [open_for_reading, open_a_socket, run_a_program, hold_the_thread, start_a_thread])
async def test_a_step_may_do_all_of_that(open_app, call, kind):
    def plain() -> str:
        call()
        return "done"

    async def asynchronous() -> str:
        return plain()

    work = {"async": step(asynchronous), "thread": step(plain), "inline": step(executor="inline")(plain)}[kind]

    @process
    async def asks_a_step() -> str:
        return await work()

    async with open_app() as app:
        assert await (await app.start(asks_a_step)).result() == "done"


async def test_process_code_may_import_modules_log_to_files_and_name_time_zones(open_app, tmp_path):
    (tmp_path / "lately_written.py").write_text("VALUE = 7\n")
    handler = logging.FileHandler(tmp_path / "log.txt", delay=True)
    log = logging.getLogger("test.forbidden")
    log.addHandler(handler)
    sys.path.insert(0, str(tmp_path))

    @process
    async def imports() -> str:
        import lately_written

        log.warning("here")
        return f"{lately_written.VALUE} {now().astimezone(zoneinfo.ZoneInfo('Asia/Tokyo')).tzname()}"

    try:
        async with open_app() as app:
            assert await (await app.start(imports)).result() == "7 JST"
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("lately_written", None)
        log.removeHandler(handler)
        handler.close()


async def test_update_handlers_are_process_code_too(open_app, until):
    class Ask(dalsegno.Event, reply=str):
        pass

    @process
    async def answers() -> None:
        @dalsegno.on(Ask)
        def answer(request: Ask) -> str:
            open_for_reading()
            return "never"

        await asyncio.sleep(86400)

    async with open_app() as app:
        run = await app.start(answers)
        with pytest.raises(ForbiddenInProcess):
            await run.update(Ask())


async def test_other_threads_and_tasks_of_the_program_are_left_alone(open_app):
    @process
    async def waits() -> None:
        await asyncio.sleep(0.01)

    async with open_app() as app:
        run = await app.start(waits)
        open_for_reading()
        await asyncio.to_thread(open_for_reading)
        await run.result()


# -- the loop ------------------------------------------------------------------------------------------


async def in_an_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, int)


async def in_a_thread() -> None:
    await asyncio.to_thread(int)


async def over_a_connection() -> None:
    await asyncio.open_connection("localhost", 1)


async def over_a_unix_connection() -> None:
    await asyncio.open_unix_connection("/nowhere")


async def as_a_server() -> None:
    await asyncio.start_server(lambda reader, writer: None, "localhost", 0)


async def with_a_program() -> None:
    await asyncio.create_subprocess_exec("true")


async def with_a_shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def with_a_signal() -> None:
    asyncio.get_running_loop().add_signal_handler(10, int)


async def on_a_socket() -> None:
    await asyncio.get_running_loop().sock_connect(None, ("localhost", 1))


async def from_another_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(int)


async def with_a_reader() -> None:
    asyncio.get_running_loop().add_reader(0, int)


async def by_name() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def for_ever() -> None:
    asyncio.get_running_loop().run_forever()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (in_an_executor, "run_in_executor"),
        (in_a_thread, "run_in_executor"),
        (over_a_connection, "create_connection"),
        (over_a_unix_connection, "create_unix_connection"),
        (as_a_server, "create_server"),
        (with_a_program, "subprocess_exec"),
        (with_a_shell, "subprocess_shell"),
        (with_a_signal, "add_signal_handler"),
        (on_a_socket, "sock_connect"),
        (from_another_thread, "call_soon_threadsafe"),
        (with_a_reader, "add_reader"),
        (by_name, "getaddrinfo"),
        (for_ever, "run_forever"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_the_loop_of_a_process_refuses_io(open_app, call, name):
    @process
    async def does_it() -> None:
        await call()

    async with open_app() as app:
        with pytest.raises(ForbiddenInProcess, match=rf"loop\.{name}\(\) is not for process code.*@step"):
            await (await app.start(does_it)).result()


# -- spinning ------------------------------------------------------------------------------------------


@process
async def yields_for_ever() -> None:
    while True:
        await asyncio.sleep(0)


@process
async def computes_for_ever() -> None:
    while True:
        pass


@process
async def computes_for_ever_and_catches_everything() -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:
            return


@process
async def renews_itself_for_ever() -> None:
    continue_as_new()


@pytest.mark.parametrize(
    "spins",
    [yields_for_ever, computes_for_ever, computes_for_ever_and_catches_everything, renews_itself_for_ever],
    ids=lambda value: value.name,
)
async def test_a_process_that_spins_is_parked_and_the_node_lives(open_app, until, spins):
    @process
    async def works() -> str:
        await asyncio.sleep(0.001)
        return "fine"

    limits = Limits(callbacks_per_turn=10_000, turn_seconds=0.1)

    async def parked() -> bool:
        return await app.get("spins").status() == "parked"

    async with open_app(deterministic=False, limits=limits) as app:
        run = await app.start(spins, id="spins")
        await until(parked)
        assert "it spins" in ((await run.describe()).error or "")
        assert await (await app.start(works)).result() == "fine"
    # Nor does it hold up a node that finds it; an operator can look at it again, or end it.
    async with open_app(deterministic=False, limits=limits) as app:
        assert await (await app.start(works)).result() == "fine"
        run = app.get("spins")
        await run.resume()
        await until(parked)
        await run.terminate()
        assert await run.status() == "terminated"
