"""The guide to testing: its blocks are a module and its tests, run by pytest with the plugin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

_GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
_HEAD = "from dalsegno import process, transaction\nfrom dalsegno.testing import Lab\n"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", _GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_guides_examples_run(pytester: pytest.Pytester) -> None:
    shop, *tests = blocks()
    pytester.makepyfile(shop=shop, test_shop=_HEAD + "\n".join(tests))

    # In a process of its own: other tests have a module of the same name.
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")

    assert result.ret == 0, result.stdout.str()
    assert result.parseoutcomes()["passed"] > 100


def test_the_first_test_of_the_guide_is_a_dozen_lines() -> None:
    whole = blocks()[1]
    test = whole[whole.index("def test_an_order_is_delivered") : whole.index("def test_what_is_not_delivered")]

    assert len([line for line in test.splitlines() if line.strip()]) <= 12
