"""The pytest plugin: the fixture `lab`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dalsegno.testing.lab import Lab


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the seed from the command line."""
    group = parser.getgroup("dalsegno")
    group.addoption("--lab-seed", type=int, default=0, help="seed of the `lab` fixture (default 0)")


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A place to try processes: the real engine in virtual time. Its runs are replayed and compared at the end."""
    # Here, so that a test session that needs no lab doesn't pay for it.
    from dalsegno.testing.lab import Lab

    with Lab(seed=request.config.getoption("--lab-seed")) as found:
        yield found
