"""The folder a server lives in: it goes, and the server with it, when the process that made it is gone."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from dalsegno.testing.servers.errors import ServerFailed

_PREFIX = "dalsegno-server-"
_OWNER = "owner.pid"
_SERVER = "server.pid"
_LOG = "server.log"
_LOG_TAIL_CHARACTERS = 3_000

# Waits for the end of its input, which is the end of the owner however that came; then ends the server and removes
# the folder. Another process that has the server's id by now doesn't name the folder in its command, nor does one
# that is dead and that nobody waits for.
_CARETAKER = f"""
cat >/dev/null
exec 2>/dev/null
runs() {{
    {{ cat "/proc/$pid/cmdline" || ps -p "$pid" -o args=; }} | grep -aqF "$0"
}}
if pid=$(cat "$0/{_SERVER}") && runs; then
    kill -CONT "$pid"
    kill -QUIT "$pid"
    tries=200
    while runs && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.05
    done
    runs && kill -KILL "$pid"
fi
tries=20
until rm -rf "$0" || [ "$tries" -eq 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
"""


class Place:
    """A temporary folder with one server, whose owner is this process."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _remove_stale(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = _take_ownership(self.folder)
        self._caretaker = subprocess.Popen(
            _caretaker(self.folder), stdin=subprocess.PIPE, cwd="/", start_new_session=True
        )
        self._process: subprocess.Popen[bytes] | None = None
        # Some servers refuse to run as root.
        self._user = _unprivileged() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"the server in {self.folder} isn't running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a server, and its process hasn't ended."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        """The end of what the server logged."""
        log = self.folder / _LOG
        return log.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:] if log.exists() else ""

    def run(self, command: Sequence[str | Path], timeout_seconds: float = 120) -> str:
        """Run a program to its end as the server's user; returns what it printed."""
        process = self._launch(command, subprocess.PIPE, subprocess.PIPE)
        try:
            output, errors = process.communicate(timeout=timeout_seconds)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if process.returncode != 0:
            message = errors.decode(errors="replace").strip()
            raise ServerFailed(f"{Path(command[0]).name} ended with {process.returncode}: {message}")
        return output.decode()

    def start(self, command: Sequence[str | Path], ready: Callable[[int], bool], timeout_seconds: float) -> None:
        """Start the server and wait until it is ready."""
        with (self.folder / _LOG).open("ab") as log:
            process = self._launch(command, log, log)
        self._process = process
        (self.folder / _SERVER).write_text(str(process.pid))
        until = time.monotonic() + timeout_seconds
        while not ready(process.pid):
            code = process.poll()
            if code is not None:
                raise ServerFailed(f"{Path(command[0]).name} ended with {code}:\n{self.log_tail()}")
            if time.monotonic() > until:
                self.stop(signal.SIGQUIT)
                raise ServerFailed(f"{Path(command[0]).name} isn't ready after {timeout_seconds} s:\n{self.log_tail()}")
            time.sleep(0.005)

    def stop(self, sign: signal.Signals, timeout_seconds: float = 60) -> None:
        """Tell the server to end and wait until it has; nothing happens where it isn't running."""
        process = self._process
        if process is None:
            return
        process.send_signal(sign)
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server runs on after {timeout_seconds} s:\n{self.log_tail()}") from None
        self._process = None
        (self.folder / _SERVER).unlink()

    def _launch(
        self, command: Sequence[str | Path], stdout: int | IO[bytes], stderr: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=self.folder,
            env=_environment(),
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            # An interrupt at the terminal is for the owner.
            start_new_session=True,
        )

    def write(self, name: str, text: str) -> Path:
        """A file in the folder that the server may read."""
        path = self.folder / name
        path.write_text(text)
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return path

    def remove(self) -> None:
        """End the server if it runs, and remove the folder."""
        if self._caretaker.stdin is not None and not self._caretaker.stdin.closed:
            self._caretaker.stdin.close()
            if self._process is not None:
                self._process.wait()
            self._caretaker.wait()
            os.close(self._lock)


def _caretaker(folder: Path) -> list[str]:
    return ["/bin/sh", "-c", _CARETAKER, str(folder)]


def _take_ownership(folder: Path) -> int:
    # The lock ends with this process. The file gets its name once it is locked: it is never seen free before.
    fresh = folder / (_OWNER + ".new")
    lock = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, str(os.getpid()).encode())
    fresh.rename(folder / _OWNER)
    return lock


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(_PREFIX + "*"):
        try:
            lock = os.open(folder / _OWNER, os.O_RDWR)
        except OSError:
            continue  # just being made or removed, or another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(_caretaker(folder), stdin=subprocess.DEVNULL, cwd="/", check=False)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            os.close(lock)


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _environment() -> dict[str, str]:
    # The caller's PGPORT, PGOPTIONS and so on are about another server.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def program(name: str) -> Path | None:
    """Where a program is, in the folders for administrators too."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    return Path(found) if found else None
