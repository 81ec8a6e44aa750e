"""Which images are held out to measure with. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdft.config.dataset import DatasetSettings
from sdft.dataset.records import Placement
from sdft.errors import DataError
from sdft.streams import seed64


def split_off(
    placements: Sequence[Placement], usable: Sequence[bool], datasets: Sequence[DatasetSettings]
) -> frozenset[int]:
    """Return the numbers of the placements that are held out.

    Each dataset gives its share of files, chosen by seed and name, so that new images change
    little; images of regularisation are never held out. A file that stands in several subsets is
    held out from all of them.

    Raises: DataError where nothing would be left to train on.
    """
    held: set[int] = set()
    for number, dataset in enumerate(datasets):
        if not dataset.validation_split:
            continue
        members: dict[Path, list[int]] = {}
        for position, (placement, is_usable) in enumerate(zip(placements, usable, strict=True)):
            item = placement.item
            is_reg = dataset.subsets[item.subset].is_reg if item.dataset == number else True
            if not is_reg and is_usable:
                members.setdefault(item.path, []).append(position)
        count = max(1, round(len(members) * dataset.validation_split))
        if count >= len(members):
            raise DataError(
                what=f"{len(members)} images are too few to hold out"
                f" {dataset.validation_split:g} of them",
                where="validation_split",
                fix="lower it, or name a folder of other images in validation_dir",
            )
        for path in ranked(members, placements, dataset.validation_seed or 0)[:count]:
            held.update(members[path])
    return frozenset(held)


def ranked(
    members: dict[Path, list[int]], placements: Sequence[Placement], seed: int
) -> list[Path]:
    """Return files in an order that depends on the seed and on their names alone."""
    keys = {path: placements[positions[0]].item.key for path, positions in members.items()}
    return sorted(members, key=lambda path: (seed64(seed, "validation", keys[path]), keys[path]))
