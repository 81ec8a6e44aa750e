"""Columns that look like tuples of records from outside."""

from pathlib import Path

import pytest

from sdft.dataset.buckets import plan_buckets
from sdft.dataset.records import BucketSettings, DatasetIndex, Item
from sdft.dataset.tables import ItemTable, PlacementTable


def items_of(count):
    return tuple(
        Item(
            key=f"{number}.png",
            path=Path("images") / f"{number}.png",
            size=(300 + 97 * number, 400 + 31 * number),
            caption=f"caption {number}",
            dataset=number % 2,
            subset=number % 3,
            num_repeats=1 + number % 2,
            file_bytes=10**6 + number,
            mtime_ns=1_700_000_000_123_456_789 + number,
        )
        for number in range(count)
    )


def plan_of(items):
    index = DatasetIndex(items=items, rejected=(), notices=())
    return plan_buckets(index, [BucketSettings(resolution=(512, 512))] * 2)[0]


def test_a_table_gives_back_the_very_items():
    items = items_of(7)
    table = ItemTable.of(items)
    assert table == items
    assert tuple(table) == items
    assert table[2:5] == items[2:5]
    assert table[-1] == items[-1]
    assert hash(table[0]) == hash(items[0])
    assert ItemTable.of(table) is table
    with pytest.raises(IndexError):
        table[7]


def test_a_plan_is_the_same_from_records_and_from_columns():
    items = items_of(20)
    from_records, from_columns = plan_of(items), plan_of(ItemTable.of(items))
    assert from_records.placements == from_columns.placements
    copied = PlacementTable.of(tuple(from_records.placements))
    assert copied == from_records.placements
    placed = {(one.item.dataset, one.bucket) for one in from_records.placements}
    assert copied.by_bucket().keys() == placed


def test_some_rows_of_a_table_are_those_rows():
    placements = plan_of(items_of(20)).placements
    some = PlacementTable.of(placements).take([3, 5, 4])
    assert list(some) == [placements[3], placements[5], placements[4]]
    assert some.texts(some.items.keys) == [one.item.key for one in some]


def test_members_of_buckets_are_all_rows_once_in_order():
    plan = plan_of(items_of(50))
    members = PlacementTable.of(plan.placements).by_bucket()
    assert sorted(row for rows in members.values() for row in rows) == list(range(50))
    for (dataset, bucket), rows in members.items():
        assert rows.tolist() == sorted(rows)
        assert {plan.placements[row].item.dataset for row in rows} == {dataset}
        assert {plan.placements[row].bucket for row in rows} == {bucket}
    assert list(members) == sorted(members)


def test_an_empty_table_is_a_table():
    plan = plan_of(())
    assert len(plan.placements) == 0
    assert PlacementTable.of(plan.placements).by_bucket() == {}
    assert plan.placements == ()
