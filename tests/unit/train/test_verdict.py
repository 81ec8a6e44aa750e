"""What measurements say: bands, the best one, and images learnt by heart."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from sdft.train.verdict import (
    Measurement,
    Parting,
    band,
    best,
    gap,
    has_parted,
    mean,
    news_of_parting,
    num_without_gain,
)


def measured(step, held_out, train=(0.5, 0.5)):
    return Measurement(
        step=step, epoch=1, held_out=tuple(held_out), train=tuple(train), by_timestep=(0.0,)
    )


def test_a_band_holds_the_true_mean_as_often_as_it_says():
    chance = random.Random(3)
    inside = 0
    for _ in range(2000):
        low, high = band([chance.gauss(1.0, 0.3) for _ in range(5)])
        inside += low <= 1.0 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_band_is_the_textbooks_and_a_single_image_has_none():
    values = [1.0, 2.0, 4.0]
    half = 4.303 * statistics.stdev(values) / math.sqrt(3)
    assert band(values) == pytest.approx((mean(values) - half, mean(values) + half))
    assert band([1.0]) is None
    many = [float(n % 7) for n in range(1000)]
    low, high = band(many)
    assert high - low == pytest.approx(2 * 1.96 * statistics.stdev(many) / math.sqrt(1000))


def test_the_gap_compares_each_image_with_itself():
    # Held-out images are harder from the start; that alone is no gap.
    first = measured(0, [0.9, 0.2, 0.5, 0.7], [0.1, 0.2, 0.3, 0.2])
    now = measured(10, [0.99, 0.221, 0.55, 0.77], [0.09, 0.181, 0.27, 0.18])
    found = gap(first, now)
    assert found.size == pytest.approx(math.log(1.1 / 0.9), abs=0.005)
    assert found.error < 0.005
    assert found.is_there
    same = gap(first, first)
    assert (same.size, same.is_there) == (0.0, False)


def test_a_model_that_only_begins_to_learn_shows_no_gap():
    # All losses fall from 1 to 0.1; the start's chance differences are no part of what is learnt.
    first = measured(0, [1.08, 1.12, 1.05], [1.12, 1.15, 1.10])
    later = [measured(n, [0.100, 0.104, 0.098], [0.101, 0.099, 0.100]) for n in (1, 2, 3)]
    assert not has_parted([first, *later])


def test_a_gap_needs_several_measurements_in_a_row():
    first = measured(0, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    apart = [measured(n, [0.6, 0.61, 0.6], [0.3, 0.31, 0.3]) for n in (1, 2, 3)]
    close = measured(2, [0.5, 0.51, 0.5], [0.49, 0.5, 0.5])
    assert not has_parted([first, *apart[:2]])
    assert not has_parted([first, apart[0], close, apart[2]])
    assert has_parted([first, *apart])


def test_what_a_gap_means_depends_on_whether_held_out_images_still_gain_and_is_said_once():
    losses = [0.5, 0.46, 0.44, 0.43, 0.42, 0.45, 0.41, 0.46, 0.47]
    history = [
        measured(n, [one, 1.01 * one, one], [0.5 * 0.8**n, 0.51 * 0.8**n, 0.5 * 0.8**n])
        for n, one in enumerate(losses)
    ]
    assert not has_parted(history[:3])
    assert has_parted(history[:4])
    said = [news_of_parting(history[: n + 1]) for n in range(len(history))]
    none = Parting.NONE
    assert said == [none, none, none, Parting.BEGINS, none, Parting.BY_HEART, none, none, none]
    worse = [history[0], *(measured(n, [0.5, 0.51, 0.5], [0.2, 0.21, 0.2]) for n in (1, 2, 3))]
    assert news_of_parting(worse) is Parting.BY_HEART


def test_too_few_images_or_mere_chance_are_no_gap():
    one = [measured(n, [0.5 + n], [0.5, 0.5]) for n in range(5)]
    assert not has_parted(one)
    chance = random.Random(1)
    noisy = [
        measured(
            n,
            [0.5 + chance.gauss(0, 0.1) for _ in range(8)],
            [0.5 + chance.gauss(0, 0.1) for _ in range(8)],
        )
        for n in range(20)
    ]
    assert not any(has_parted(noisy[: n + 1]) for n in range(20))


def test_a_certain_but_tiny_gap_is_no_gap():
    first = measured(0, [0.5] * 100, [0.5] * 100)
    later = [measured(n, [0.53] * 100, [0.5] * 100) for n in range(1, 4)]
    assert gap(first, later[-1]).error < 1e-6
    assert not has_parted([first, *later])


def test_the_untrained_model_is_never_the_best():
    history = [measured(0, [0.1]), measured(1, [0.4]), measured(2, [0.3]), measured(3, [0.3])]
    assert best(history).step == 2
    assert num_without_gain(history) == 1
    assert best(history[:1]) is None
    assert num_without_gain(history[:1]) == 0
    assert num_without_gain([*history, measured(4, [0.2])]) == 0
