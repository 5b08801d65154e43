"""The honest conditions: what a reader needs to repeat a figure, or to doubt it."""

import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from bench.load import percentile
from bench.setup import VAR


def conditions(packages: tuple[str, ...] = ()) -> dict[str, str]:
    """Taken before the run, so that the load figures are the machine's own."""
    p50, p99 = fdatasync_ms()
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "bench", *sys.argv[1:]]),
        "revision": revision(),
        "cpu": f"{os.cpu_count()} x {cpu_model()}",
        "load_before": load(),
        "memory": memory(),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "fdatasync_4k": f"p50 {p50:.3f} ms, p99 {p99:.3f} ms",
    }
    return facts | {package: installed(package) for package in packages}


def load() -> str:
    """Over 1, 5 and 15 minutes: what other programs did to the figures shows here."""
    return " ".join(f"{share:.2f}" for share in os.getloadavg())


def fdatasync_ms(writes: int = 300) -> tuple[float, float]:
    """What one durable write of a page costs on the disk the databases will lie on."""
    latencies = []
    with tempfile.TemporaryFile(dir=VAR) as file:
        for number in range(writes):
            began = perf_counter()
            os.pwrite(file.fileno(), bytes(4096), number * 4096)
            os.fdatasync(file.fileno())
            latencies.append((perf_counter() - began) * 1e3)
    return percentile(latencies, 0.5), percentile(latencies, 0.99)


def revision() -> str:
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() or "not a checkout"


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
    return next(lines, ": unknown").partition(":")[2].strip()


def memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
