"""Each lane at a small size, and each lane shown a bug that it has to find."""

from __future__ import annotations

import shutil

import pytest
from tests.reliability.lanes import LANES
from tests.reliability.planting import planting
from tests.reliability.seeds import again, kept

needs_a_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the disk is simulated by a C library")


@pytest.mark.parametrize("lane", ["simulation", "kills", "programs"])
def test_a_lane_finds_nothing(lane: str) -> None:
    assert LANES[lane]["test"](1).violations == []


@needs_a_compiler
@pytest.mark.parametrize("lane", ["power", "disk"])
def test_a_lane_on_a_failing_disk_finds_nothing(lane: str) -> None:
    assert LANES[lane]["test"](1).violations == []


@pytest.mark.parametrize("lane", ["simulation", "kills", "programs"])
def test_seeds_that_failed_once_fail_no_more(lane: str) -> None:
    assert again(lane, kept(lane)) == []


@needs_a_compiler
def test_every_lane_finds_a_bug_that_was_planted_for_it() -> None:
    bugs = [
        "no_fence_on_commit",
        "dispatched_before_the_commit",
        "a_stopping_step_is_not_looked_for",
        "takeover_leaves_the_old_epoch",
        "nothing_is_synced",
        "an_error_of_the_disk_is_ignored",
    ]
    assert planting(bugs).violations == []
