"""What the benchmark needs beyond Python packages: Restate's server, from npm, into a git-ignored folder."""

import shutil
import subprocess
from pathlib import Path

VAR = Path("var/bench").absolute()
NPM = VAR / "npm"
RESTATE_SERVER = NPM / "node_modules" / ".bin" / "restate-server"
RESTATE_VERSION = "1.7.12"


def has_restate() -> bool:
    """Whether the server is there, or could be fetched."""
    return RESTATE_SERVER.exists() or shutil.which("npm") is not None


def fetch_restate() -> None:
    """Install the server unless it is there, without install scripts: the only one reports the download."""
    if RESTATE_SERVER.exists():
        return
    NPM.mkdir(parents=True, exist_ok=True)
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    package = f"@restatedev/restate-server@{RESTATE_VERSION}"
    subprocess.run(["npm", "install", "--prefix", str(NPM), *quiet, package], check=True)
