"""The order of training is complete, fair and a pure function of seed and epoch."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdft.train.sampler import Group, Order, Use, micro_batches, shuffled


@st.composite
def group_lists(draw):
    """Several datasets of several buckets, of which some may be empty or used several times."""
    groups = []
    first = 0
    for dataset in range(draw(st.integers(1, 3))):
        for column in range(draw(st.integers(1, 4))):
            repeats = draw(st.lists(st.integers(0, 3), min_size=1, max_size=9))
            placements = range(first, first + len(repeats))
            first += len(repeats)
            bucket = (256 + 64 * column, 512)
            groups.append(
                Group(dataset=dataset, bucket=bucket, placements=placements, repeats=repeats)
            )
    return groups


configurations = {
    "groups": group_lists(),
    "batches": st.tuples(*[st.integers(1, 5)] * 3),
    "accumulation": st.integers(1, 3),
    "processes": st.integers(1, 3),
    "seed": st.integers(0, 2**31),
}


def order_of(groups, batches, accumulation, processes, seed, partial="keep"):
    effective = [batch * accumulation * processes for batch in batches]
    return Order(groups=groups, effective_batch=effective, seed=seed, partial_batches=partial)


def seen_by_all_ranks(order, epoch, batches, processes, accumulation):
    """Return every use that some process sees in an epoch, and check each share's size."""
    seen = Counter()
    for step in order.epoch(epoch):
        batch = batches[step.dataset]
        for rank in range(processes):
            shares = micro_batches(step, batch_size=batch, rank=rank, num_processes=processes)
            assert len(shares) <= accumulation
            assert all(len(uses) <= batch for uses in shares)
            seen.update((step.dataset, step.bucket, use) for uses in shares for use in uses)
    return seen


def all_uses(groups, epoch):
    return Counter((g.dataset, g.bucket, use) for g in groups for use in g.uses(epoch))


@settings(max_examples=1500, deadline=None)
@given(epoch=st.integers(1, 50), **configurations)
def test_every_use_of_every_item_occurs_exactly_once_an_epoch(
    groups, batches, accumulation, processes, seed, epoch
):
    order = order_of(groups, batches, accumulation, processes, seed)
    seen = seen_by_all_ranks(order, epoch, batches, processes, accumulation)
    assert seen == all_uses(groups, epoch)
    assert len(order.epoch(epoch)) == order.steps_through(1)
    assert order.left_out() == order.never_used() == 0


@settings(max_examples=1000, deadline=None)
@given(epochs=st.integers(1, 12), **configurations)
def test_carried_uses_all_come_once_in_full_steps_and_less_than_a_step_waits(
    groups, batches, accumulation, processes, seed, epochs
):
    order = order_of(groups, batches, accumulation, processes, seed, "carry")
    seen = Counter()
    for epoch in range(1, epochs + 1):
        steps = order.epoch(epoch)
        assert all(len(step.uses) == step.effective_batch for step in steps)
        assert all(use.epoch <= epoch for step in steps for use in step.uses)
        seen += seen_by_all_ranks(order, epoch, batches, processes, accumulation)
    expected = sum((all_uses(groups, epoch) for epoch in range(1, epochs + 1)), Counter())
    waiting = Counter((dataset, bucket) for dataset, bucket, _ in (expected - seen).elements())
    assert seen <= expected
    assert all(count < order.effective_batch[dataset] for (dataset, _), count in waiting.items())
    assert order.steps_through(epochs) == sum(
        len(order.epoch(epoch)) for epoch in range(1, epochs + 1)
    )


@settings(max_examples=500, deadline=None)
@given(epoch=st.integers(1, 12), **configurations)
def test_dropping_leaves_out_only_what_fills_no_step(
    groups, batches, accumulation, processes, seed, epoch
):
    order = order_of(groups, batches, accumulation, processes, seed, "drop")
    steps = order.epoch(epoch)
    assert all(len(step.uses) == step.effective_batch for step in steps)
    seen = seen_by_all_ranks(order, epoch, batches, processes, accumulation)
    assert max(seen.values(), default=1) == 1
    assert seen.total() == order.num_uses - order.left_out()
    assert len(steps) == order.steps_through(1)


@settings(max_examples=500, deadline=None)
@given(
    num_steps=st.integers(1, 60),
    partial=st.sampled_from(["keep", "carry", "drop"]),
    **configurations,
)
def test_the_last_epoch_is_the_one_that_the_last_step_lies_in(
    groups, batches, accumulation, processes, seed, num_steps, partial
):
    order = order_of(groups, batches, accumulation, processes, seed, partial)
    last = order.epochs_for(num_steps)
    if last == 0:
        assert order.steps_through(1000) == 0
    else:
        assert order.steps_through(last - 1) < num_steps <= order.steps_through(last)


def groups_of(count):
    return [Group(dataset=0, bucket=(512, 512), placements=range(count), repeats=[1] * count)]


def epoch_of(groups, *, effective=(4,), seed=1, epoch=1):
    return list(Order(groups=groups, effective_batch=effective, seed=seed).epoch(epoch))


def test_all_processes_get_the_same_number_of_micro_batches_even_of_a_partial_step():
    (step,) = epoch_of(groups_of(5), effective=[8])
    shares = [micro_batches(step, batch_size=2, rank=rank, num_processes=2) for rank in (0, 1)]
    assert [len(uses) for uses in shares[0]] == [2, 1]
    assert [len(uses) for uses in shares[1]] == [2, 0]


def test_the_order_changes_with_the_epoch_and_the_seed_and_with_nothing_else():
    def places(**address):
        return [[use.placement for use in step.uses] for step in epoch_of(groups_of(50), **address)]

    assert places(seed=1, epoch=1) == places(seed=1, epoch=1)
    assert places(seed=1, epoch=1) != places(seed=1, epoch=2)
    assert places(seed=1, epoch=1) != places(seed=2, epoch=1)


def test_the_order_is_the_same_on_every_machine_and_version():
    assert shuffled(8, 1, 2, "order").tolist() == [0, 1, 4, 6, 3, 2, 5, 7]


def test_steps_from_the_middle_of_an_epoch_are_those_of_the_whole_epoch():
    whole = Order(groups=groups_of(50), effective_batch=[4], seed=1).epoch(1)
    assert list(whole.between(5, 9)) == list(whole)[5:9]
    assert list(whole.between(12, 99)) == list(whole)[12:]


def test_a_step_never_mixes_buckets_or_datasets():
    groups = [
        Group(dataset=0, bucket=(512, 512), placements=[0, 1, 2], repeats=[2, 2, 2]),
        Group(dataset=0, bucket=(640, 384), placements=[3, 4], repeats=[1, 1]),
        Group(dataset=1, bucket=(512, 512), placements=[5, 6, 7], repeats=[1, 1, 1]),
    ]
    home = {number: (g.dataset, g.bucket) for g in groups for number in g.placements}
    for step in epoch_of(groups, effective=[4, 2], seed=3):
        assert {home[use.placement] for use in step.uses} == {(step.dataset, step.bucket)}


def test_an_items_weight_is_the_same_in_a_full_and_in_a_partial_step():
    steps = epoch_of(groups_of(5))
    assert sorted(len(step.uses) for step in steps) == [1, 4]
    assert {step.effective_batch for step in steps} == {4}
    assert Use(0, 0) in [use for step in steps for use in step.uses]


@pytest.mark.parametrize("partial", ["keep", "carry", "drop"])
def test_uses_of_one_item_in_one_step_are_told_apart(partial):
    order = Order(groups=groups_of(3), effective_batch=[4], seed=1, partial_batches=partial)
    for epoch in range(1, 5):
        for step in order.epoch(epoch):
            assert len(set(step.uses)) == len(step.uses)
