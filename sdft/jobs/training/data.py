"""From the plan of a dataset to what the engine reads: items, groups, latents.

In: a planned dataset, the latents' keys. Out: TrainingData. Works on columns: an item's record is
made when a step uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from sdft.cache.latents import LatentKeys
from sdft.dataset.augment import PictureJob, PictureRules
from sdft.dataset.records import Placement, WordRules
from sdft.dataset.tables import PlacementTable
from sdft.jobs.ordering import groups_of
from sdft.train.batch import TrainingItem
from sdft.train.sampler import Group

Place = tuple[int, int]
"""Dataset and subset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetRules:
    """What all images of one subset have in common."""

    words: WordRules
    picture: PictureRules
    loss_weight: float


class TrainingItems(Sequence[TrainingItem]):
    """The items of a run, each made when it is asked for."""

    def __init__(
        self,
        table: PlacementTable,
        keys: Sequence[LatentKeys],
        masks: Sequence[str | None],
        rules: Mapping[Place, SubsetRules],
    ) -> None:
        self.table = table
        self.keys = keys
        self.masks = masks
        self.rules = rules

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[TrainingItem]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> TrainingItem:  # type: ignore[override]
        placement = self.table.row(range(len(self))[number])
        item, latents = placement.item, self.keys[number]
        rules = self.rules[item.dataset, item.subset]
        return TrainingItem(
            key=item.key,
            subset=item.subset,
            caption=item.caption,
            words=rules.words,
            latents=latents.plain,
            flipped_latents=latents.flipped,
            picture=PictureJob.of(placement, rules.picture) if latents.live else None,
            weight=rules.loss_weight,
            mask=self.masks[number],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a run trains on; fixed before its first step."""

    items: TrainingItems
    groups: tuple[Group, ...]
    batch_size: tuple[int, ...]
    """Items a forward pass, one number a dataset."""
    digest: str
    """Of everything about the images and words that decides the result."""

    @property
    def num_images(self) -> int:
        return len(self.items)

    @property
    def num_batches_per_epoch(self) -> int:
        """Return the number of forward passes of one process in an epoch, as sd-scripts counts."""
        return sum(-(-group.num_uses // self.batch_size[group.dataset]) for group in self.groups)


def training_data(
    placements: Sequence[Placement],
    keys: Sequence[LatentKeys],
    *,
    words: Mapping[Place, WordRules],
    pictures: Mapping[Place, PictureRules],
    loss_weights: Mapping[Place, float],
    batch_size: Sequence[int],
    masks: Sequence[str | None],
) -> TrainingData:
    """Return what the engine reads. Placements that were rejected are left out.

    `words`, `pictures` and `loss_weights` are by (dataset, subset); `batch_size` holds one number a
    dataset; `masks` has a key for each placement, or none.
    """
    table = PlacementTable.of(placements)
    assert len(table) == len(keys) == len(masks), "each placement has its keys and its mask"
    if not all(one.usable for one in keys):
        used = [number for number, one in enumerate(keys) if one.usable]
        table = table.take(used)
        keys = [keys[number] for number in used]
        masks = [masks[number] for number in used]
    rules = {
        place: SubsetRules(words=words[place], picture=pictures[place], loss_weight=weight)
        for place, weight in loss_weights.items()
    }
    return TrainingData(
        items=TrainingItems(table, keys, masks, rules),
        groups=groups_of(table),
        batch_size=tuple(batch_size),
        digest=_digest(table, keys, masks, rules),
    )


def _digest(
    table: PlacementTable,
    keys: Sequence[LatentKeys],
    masks: Sequence[str | None],
    rules: Mapping[Place, SubsetRules],
) -> str:
    """Return a digest of everything about the images and words that decides the result.

    What an image shows is known by the keys of its latents; without them, by its file's size and
    what is done with its pixels.
    """
    items, numbers = table.items, table.numbers_N
    live_N = np.array([one.live for one in keys], dtype=bool)
    seen = {(int(dataset), int(subset)) for dataset, subset in np.unique(table.item_places, axis=0)}
    digest = blake2b(digest_size=16)
    for place in sorted(seen):
        one = rules[place]
        shown = one.picture if live_N.any() else None
        digest.update(repr((place, one.words, one.loss_weight, shown)).encode("utf-8"))
    columns = [table.item_places, table.buckets_N2, items.repeats_N[numbers]]
    columns += [items.sizes_N2[numbers][live_N], items.file_bytes_N[numbers][live_N]]
    for column in columns:
        digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
    for texts in (
        table.texts(items.keys),
        table.texts(items.captions),
        [one.plain or "" for one in keys],
        [one.flipped or "" for one in keys],
        [mask or "" for mask in masks],
    ):
        for part in _packed(texts):
            digest.update(part)
    return digest.hexdigest()


def _packed(texts: Sequence[str]) -> Iterable[bytes]:
    """Give bytes that differ wherever two lists of texts differ."""
    yield np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)).tobytes()
    yield "".join(texts).encode("utf-8", "surrogatepass")
