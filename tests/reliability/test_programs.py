"""Random processes come to the same live, after crashes, on replay, and on both stores."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reliability.program import Generator
from tests.reliability.programs import differences


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 10_000))
def test_a_program_does_the_same_whatever_crashes_and_wherever_it_is_kept(chance: Random, seed: int) -> None:
    tree = Generator(chance, depth=3).tree()

    assert differences(tree, [seed], crashes=6) == []
