"""The warning that training takes another amount of memory than was planned."""

from __future__ import annotations

from sdft.train.memory_watch import MemoryWatch

SMALL, LARGE = (256, 256), (512, 512)
PLANNED = {SMALL: 1000, LARGE: 2000}


def told(*steps):
    said = []
    watch = MemoryWatch(PLANNED, said.append)
    for bucket, measured in steps:
        watch.after_step(bucket, measured)
    return [one.message for one in said]


def test_a_plan_that_holds_is_no_news():
    assert told((SMALL, 950), (SMALL, 1090), (LARGE, 1850), (LARGE, 2190)) == []


def test_more_than_a_tenth_above_the_plan_is_told_once():
    messages = told((SMALL, 1000), (LARGE, 2300), (LARGE, 2400))
    assert len(messages) == 1
    assert "2.3 kB" in messages[0]
    assert "+15%" in messages[0]


def test_the_smaller_bucket_has_its_own_plan():
    assert len(told((SMALL, 1200))) == 1


def test_below_the_plan_counts_in_the_worst_bucket_only():
    assert told((SMALL, 500), (SMALL, 500)) == []
    assert len(told((SMALL, 500), (LARGE, 1500))) == 1


def test_the_first_step_has_no_states_yet():
    assert told((LARGE, 1200), (LARGE, 1950)) == []


def test_once_right_the_plan_is_not_blamed_for_what_samples_take():
    assert told((LARGE, 1900), (LARGE, 1950), (LARGE, 5000)) == []


def test_without_a_plan_there_is_nothing_to_compare():
    said = []
    MemoryWatch({}, said.append).after_step(LARGE, 10**12)
    assert said == []


def test_what_samples_take_before_the_plan_was_proved_is_not_held_against_it():
    said = []
    watch = MemoryWatch(PLANNED, said.append)
    watch.after_step(SMALL, 1000)
    watch.stop()
    watch.after_step(LARGE, 5000)
    assert said == []
