"""What processes are tested with: the `Lab`, and the suite that every store must pass.

`Lab` runs processes on the real engine in virtual time; with pytest it is the fixture `lab`.
"""

from dalsegno.testing.doubles import Double
from dalsegno.testing.journal import Journal
from dalsegno.testing.lab import Lab
from dalsegno.testing.life import Stuck
from dalsegno.testing.run import LabRun
from dalsegno.testing.stage import Call

__all__ = ["Call", "Double", "Journal", "Lab", "LabRun", "Stuck"]
