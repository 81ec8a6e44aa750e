"""The order of training is complete, fair and a pure function of seed and epoch."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sdft.train.sampler import Group, Use, epoch_steps, micro_batches, steps_per_epoch


@st.composite
def group_lists(draw):
    groups = []
    first = 0
    for dataset in range(draw(st.integers(1, 3))):
        for column in range(draw(st.integers(1, 4))):
            repeats = draw(st.lists(st.integers(1, 3), min_size=1, max_size=9))
            placements = range(first, first + len(repeats))
            first += len(repeats)
            bucket = (256 + 64 * column, 512)
            groups.append(
                Group(dataset=dataset, bucket=bucket, placements=placements, repeats=repeats)
            )
    return groups


@settings(max_examples=1000, deadline=None)
@given(
    groups=group_lists(),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 3),
    processes=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    epoch=st.integers(1, 50),
)
def test_every_use_of_every_item_occurs_exactly_once_an_epoch(
    groups, batch, accumulation, processes, seed, epoch
):
    effective = [batch * accumulation * processes] * 3
    steps = epoch_steps(groups, effective_batch=effective, seed=seed, epoch=epoch)
    expected = Counter((g.dataset, g.bucket, use) for g in groups for use in g.uses())
    seen = Counter()
    for step in steps:
        for rank in range(processes):
            shares = micro_batches(step, batch_size=batch, rank=rank, num_processes=processes)
            assert len(shares) <= accumulation
            assert all(len(uses) <= batch for uses in shares)
            seen.update((step.dataset, step.bucket, use) for uses in shares for use in uses)
    assert seen == expected
    assert len(steps) == steps_per_epoch(groups, effective)


def groups_of(count):
    return [Group(dataset=0, bucket=(512, 512), placements=range(count), repeats=[1] * count)]


def test_all_processes_get_the_same_number_of_micro_batches_even_of_a_partial_step():
    (step,) = epoch_steps(groups_of(5), effective_batch=[8], seed=1, epoch=1)
    shares = [micro_batches(step, batch_size=2, rank=rank, num_processes=2) for rank in (0, 1)]
    assert [len(uses) for uses in shares[0]] == [2, 1]
    assert [len(uses) for uses in shares[1]] == [2, 0]


def test_the_order_changes_with_the_epoch_and_the_seed_and_with_nothing_else():
    def order(**address):
        return epoch_steps(groups_of(50), effective_batch=[4], **address)

    assert order(seed=1, epoch=1) == order(seed=1, epoch=1)
    assert order(seed=1, epoch=1) != order(seed=1, epoch=2)
    assert order(seed=1, epoch=1) != order(seed=2, epoch=1)


def test_a_step_never_mixes_buckets_or_datasets():
    groups = [
        Group(dataset=0, bucket=(512, 512), placements=[0, 1, 2], repeats=[2, 2, 2]),
        Group(dataset=0, bucket=(640, 384), placements=[3, 4], repeats=[1, 1]),
        Group(dataset=1, bucket=(512, 512), placements=[5, 6, 7], repeats=[1, 1, 1]),
    ]
    home = {number: (g.dataset, g.bucket) for g in groups for number in g.placements}
    for step in epoch_steps(groups, effective_batch=[4, 2], seed=3, epoch=1):
        assert {home[use.placement] for use in step.uses} == {(step.dataset, step.bucket)}


def test_an_items_weight_is_the_same_in_a_full_and_in_a_partial_step():
    steps = epoch_steps(groups_of(5), effective_batch=[4], seed=1, epoch=1)
    assert sorted(len(step.uses) for step in steps) == [1, 4]
    assert {step.effective_batch for step in steps} == {4}
    assert Use(0, 0) in [use for step in steps for use in step.uses]
