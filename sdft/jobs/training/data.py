"""From the plan of a dataset to what the engine reads: items, groups, cached latents.

In: a planned dataset, the latents' keys. Out: TrainingData.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from sdft.cache.latents import LatentKeys
from sdft.dataset.augment import PictureJob, PictureRules
from sdft.dataset.records import Placement, Size, WordRules
from sdft.train.batch import TrainingItem
from sdft.train.sampler import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a run trains on; fixed before its first step."""

    items: tuple[TrainingItem, ...]
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
    words: Mapping[tuple[int, int], WordRules],
    pictures: Mapping[tuple[int, int], PictureRules],
    loss_weights: Mapping[tuple[int, int], float],
    batch_size: Sequence[int],
    masks: Sequence[str | None],
) -> TrainingData:
    """Return what the engine reads. Placements that were rejected are left out.

    `words`, `pictures` and `loss_weights` are by (dataset, subset); `batch_size` holds one number a
    dataset; `masks` has a key for each placement, or none.
    """
    items: list[TrainingItem] = []
    members: dict[tuple[int, Size], tuple[list[int], list[int]]] = {}
    digest = blake2b(digest_size=16)
    for placement, latents, mask in zip(placements, keys, masks, strict=True):
        if not latents.usable:
            continue
        item = placement.item
        place = (item.dataset, item.subset)
        numbers, repeats = members.setdefault((item.dataset, placement.bucket), ([], []))
        numbers.append(len(items))
        repeats.append(item.num_repeats)
        rules = words[place]
        picture = PictureJob.of(placement, pictures[place]) if latents.live else None
        items.append(
            TrainingItem(
                key=item.key,
                subset=item.subset,
                caption=item.caption,
                words=rules,
                latents=latents.plain,
                flipped_latents=latents.flipped,
                picture=picture,
                weight=loss_weights[place],
                mask=mask,
            )
        )
        facts = (item.dataset, item.subset, item.key, item.num_repeats, item.caption, rules)
        # What an image shows is known by the keys of its latents; without, by its file's size.
        shown = (item.size, item.file_bytes, pictures[place]) if picture else latents
        digest.update(
            repr((*facts, placement.bucket, shown, mask)).encode("utf-8", "surrogatepass")
        )
    groups = tuple(
        Group(dataset=dataset, bucket=bucket, placements=numbers, repeats=repeats)
        for (dataset, bucket), (numbers, repeats) in sorted(members.items())
    )
    return TrainingData(
        items=tuple(items),
        groups=groups,
        batch_size=tuple(batch_size),
        digest=digest.hexdigest(),
    )
