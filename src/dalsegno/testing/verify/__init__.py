"""Faults against a user's own process: real engine processes on a real store that are killed, frozen, and run on
disks that fail, and three witnesses who say what came of it. `dalsegno verify` is its command.
"""

from dalsegno.testing.verify.plan import Plan, Strike
from dalsegno.testing.verify.report import Report
from dalsegno.testing.verify.target import Target

__all__ = ["Plan", "Report", "Strike", "Target"]
