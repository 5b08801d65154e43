"""A worker of `dalsegno verify`: loads the user's code that the plan names, and serves."""

from __future__ import annotations

import sys

import msgspec

from dalsegno.cli.verify import target_of
from dalsegno.testing.verify.plan import Plan
from dalsegno.testing.verify.replayer import REPLAY, serve_replays
from dalsegno.testing.verify.worker import quiet_streams, serve

if __name__ == "__main__":
    answers = quiet_streams()
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    if REPLAY in sys.argv:
        serve_replays(target_of(plan), sys.stdin.buffer, answers)
    else:
        serve(target_of(plan), plan, sys.stdin.buffer, answers)
