"""From the plan of a dataset to what the engine reads: items, groups, latents.

In: a planned dataset, the latents' keys. Out: TrainingData. Works on columns: an item's record is
made when a step uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from sdft.cache.latent_keys import KeyColumn, KeyTable, LatentKeys
from sdft.cache.shard import KEY_BYTES
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
        keys: KeyTable,
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
    key_table = KeyTable.of(keys)
    assert len(table) == len(key_table) == len(masks), "each placement has its keys and its mask"
    if not key_table.usable.all():
        used = np.flatnonzero(key_table.usable).tolist()
        table = table.take(used)
        key_table = key_table.take(used)
        masks = [masks[number] for number in used]
    rules = {
        place: SubsetRules(words=words[place], picture=pictures[place], loss_weight=weight)
        for place, weight in loss_weights.items()
    }
    return TrainingData(
        items=TrainingItems(table, key_table, masks, rules),
        groups=groups_of(table),
        batch_size=tuple(batch_size),
        digest=_digest(table, key_table, masks, rules),
    )


def _digest(
    table: PlacementTable,
    keys: KeyTable,
    masks: Sequence[str | None],
    rules: Mapping[Place, SubsetRules],
) -> str:
    """Return a digest of everything about the images and words that decides the result.

    What an image shows is known by the keys of its latents; without them, by its file's size and
    what is done with its pixels.
    """
    items, numbers = table.items, table.numbers_N
    live_N = keys.live_N
    digest = blake2b(digest_size=16)
    for place in table.distinct_places:
        one = rules[place]
        shown = one.picture if live_N.any() else None
        digest.update(repr((place, one.words, one.loss_weight, shown)).encode("utf-8"))
    columns = [table.item_places, table.buckets_N2, items.repeats_N[numbers]]
    columns += [items.sizes_N2[numbers][live_N], items.file_bytes_N[numbers][live_N]]
    for column in columns:
        digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
    for part in (
        *_packed(table.texts(items.keys)),
        *_packed(table.texts(items.captions)),
        *_packed_keys(keys.plain),
        *_packed_keys(keys.flipped),
        *_packed([mask or "" for mask in masks]),
    ):
        digest.update(part)
    return digest.hexdigest()


def _packed(texts: Sequence[str]) -> Iterable[bytes]:
    """Give bytes that differ wherever two lists of texts differ."""
    yield np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)).tobytes()
    yield "".join(texts).encode("utf-8", "surrogatepass")


def _packed_keys(column: KeyColumn) -> Iterable[bytes]:
    """Give the same bytes for keys, an empty text standing for one that is not present."""
    yield (column.present_N * np.int64(2 * KEY_BYTES)).tobytes()
    yield column.joined().encode("ascii")
