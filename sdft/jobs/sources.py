"""The border where settings become the dataset's own records.

In: a Config. Out: what the dataset layer takes, and a planned dataset that bucket, cache-latents
and train share. Reads image headers and captions, no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sdft.cache.image_memory import image_memory
from sdft.cache.shared_files import shared_files
from sdft.collector import no_collections
from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.folders import cache_folder, cache_url
from sdft.config.load import Config
from sdft.dataset.augment import PictureRules, crop_unresized, faceless
from sdft.dataset.buckets import plan_buckets
from sdft.dataset.index import build_index
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.records import (
    BucketPlan,
    BucketSettings,
    DatasetIndex,
    Rejected,
    SubsetSpec,
    WordRules,
)
from sdft.dataset.remembered import ImageMemory
from sdft.errors import DataError, Problem
from sdft.events import Emit, ItemRejected, Notice
from sdft.jobs.stores import object_cache, shared_table
from sdft.units import format_bytes
from sdft.urls import UrlPath

NUM_REASONS_SHOWN = 10
"""So many rejected images are named when too many cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDataset:
    """What there is and where it goes, before any pixel is read."""

    index: DatasetIndex
    plan: BucketPlan
    rejected: tuple[Rejected, ...]
    """All that are not used: those the index could not take and those without a bucket."""
    batch_sizes: tuple[int, ...]
    """Images in a batch, one number a dataset."""


def plan_dataset(config: Config, *, emit: Emit) -> PlannedDataset:
    """Index the images and give each a bucket. Says whatever a person should know of either.

    Raises: DataError where a folder is missing, there are no images, no captions, or more images
        cannot be used than `max_rejected_share` lets pass.
    """
    tell(config.notices, emit, topic="config")
    shards, url = cache_folder(config) / "shards", cache_url(config)
    with (
        no_collections(),
        _memory(config, emit) as memory,
        shared_files(shards, url and f"{url}/shards", emit),
    ):
        specs = subset_specs(config.datasets)
        index = build_index(
            specs,
            emit=emit,
            memory=memory,
            objects=_object_cache(config, specs, emit),
            shards=shards,
        )
    plan, unplaced = plan_buckets(index, bucket_settings(config.datasets))
    plan = crop_unresized(plan, _unresized(config.datasets))
    rules = picture_rules(config.datasets)
    tell((*index.notices, *faceless(plan, rules)), emit, topic="dataset")
    rejected = (*index.rejected, *unplaced)
    for one in unplaced:
        emit(ItemRejected(path=str(one.path), reason=one.reason))
    require_enough(
        num_images=len(index.items) + len(index.rejected),
        rejected=rejected,
        max_share=config.training.max_rejected_share,
    )
    return PlannedDataset(
        index=index,
        plan=plan,
        rejected=rejected,
        batch_sizes=tuple(dataset.batch_size for dataset in config.datasets),
    )


def _memory(config: Config, emit: Emit) -> AbstractContextManager[ImageMemory]:
    shared = shared_table(config, "seen", emit)
    return image_memory(cache_folder(config), emit=emit, shared=shared)


def _object_cache(
    config: Config, datasets: Sequence[Sequence[SubsetSpec]], emit: Emit
) -> ObjectCache | None:
    """Return where objects are kept, and say so; None where all images are files."""
    specs = [spec for dataset in datasets for spec in dataset]
    if not any(isinstance(p, UrlPath) for one in specs for p in (one.image_dir, one.metadata_file)):
        return None
    cache = object_cache(config)
    message = (
        f"what is read of object stores is kept in {cache.folder}, "
        f"at most {format_bytes(cache.max_bytes)} (object_cache_gb)"
    )
    emit(Notice(severity="info", topic="objects", message=message))
    return cache


def subset_specs(datasets: Sequence[DatasetSettings]) -> tuple[tuple[SubsetSpec, ...], ...]:
    """Return each dataset's subsets as the index takes them."""
    return tuple(tuple(_spec(subset) for subset in dataset.subsets) for dataset in datasets)


def bucket_settings(datasets: Sequence[DatasetSettings]) -> tuple[BucketSettings, ...]:
    """Return each dataset's bucket settings."""
    return tuple(
        BucketSettings(
            resolution=dataset.resolution,
            enable_bucket=dataset.enable_bucket,
            min_bucket_reso=dataset.min_bucket_reso,
            max_bucket_reso=dataset.max_bucket_reso,
            bucket_reso_steps=dataset.bucket_reso_steps,
            bucket_no_upscale=dataset.bucket_no_upscale,
        )
        for dataset in datasets
    )


def word_rules(datasets: Sequence[DatasetSettings]) -> dict[tuple[int, int], WordRules]:
    """Return what happens to captions, by (dataset, subset)."""
    return {place: _words(subset) for place, subset in _places(datasets)}


def interpolations(datasets: Sequence[DatasetSettings]) -> dict[tuple[int, int], str | None]:
    """Return the way of resizing that was asked for, by (dataset, subset)."""
    return {place: subset.resize_interpolation for place, subset in _places(datasets)}


def is_flipped(datasets: Sequence[DatasetSettings]) -> dict[tuple[int, int], bool]:
    """Return whether images are mirrored half of the time, by (dataset, subset)."""
    return {place: subset.flip_aug for place, subset in _places(datasets)}


def picture_rules(datasets: Sequence[DatasetSettings]) -> dict[tuple[int, int], PictureRules]:
    """Return how images are changed on each use, by (dataset, subset)."""
    return {
        place: PictureRules(
            interpolation=subset.resize_interpolation,
            flip_aug=subset.flip_aug,
            color_aug=subset.color_aug,
            random_crop=subset.random_crop,
            face_crop_aug_range=subset.face_crop_aug_range,
        )
        for place, subset in _places(datasets)
    }


def loss_weights(
    datasets: Sequence[DatasetSettings], prior_loss_weight: float
) -> dict[tuple[int, int], float]:
    """Return what losses are multiplied with, by (dataset, subset)."""
    return {
        place: prior_loss_weight if subset.is_reg else 1.0 for place, subset in _places(datasets)
    }


def tell(problems: Sequence[Problem], emit: Emit, *, topic: str) -> None:
    """Say what a person should know but need not mend."""
    for problem in problems:
        emit(Notice(severity="warning", topic=topic, message=str(problem)))


def require_enough(*, num_images: int, rejected: Sequence[Rejected], max_share: float) -> None:
    """Check that not too many images are unusable.

    Raises: DataError that names the first of them.
    """
    if len(rejected) <= max_share * num_images and len(rejected) < num_images:
        return
    shown = [Problem(one.reason, where=str(one.path)) for one in rejected[:NUM_REASONS_SHOWN]]
    summary = Problem(
        f"{len(rejected)} of {num_images} images cannot be used;"
        f" max_rejected_share lets {max_share:g} of them pass",
        fix="mend or remove them, or raise max_rejected_share",
        key="too_many_rejected",
        values={"rejected": len(rejected), "images": num_images, "share": f"{max_share:g}"},
    )
    raise DataError(problems=[*shown, summary])


def _places(
    datasets: Sequence[DatasetSettings],
) -> list[tuple[tuple[int, int], SubsetSettings]]:
    return [
        ((number, position), subset)
        for number, dataset in enumerate(datasets)
        for position, subset in enumerate(dataset.subsets)
    ]


def _unresized(datasets: Sequence[DatasetSettings]) -> frozenset[tuple[int, int]]:
    """Return the subsets whose images are cut at random without being resized, as sd-scripts does
    where there are no buckets."""
    return frozenset(
        place
        for place, subset in _places(datasets)
        if subset.random_crop and not datasets[place[0]].enable_bucket
    )


def _spec(subset: SubsetSettings) -> SubsetSpec:
    return SubsetSpec(
        image_dir=subset.image_dir,
        metadata_file=subset.metadata_file,
        caption_extension=subset.caption_extension,
        class_tokens=subset.class_tokens,
        num_repeats=subset.num_repeats,
        is_reg=subset.is_reg,
        alpha_mask=subset.alpha_mask,
        flip_aug=subset.flip_aug,
        color_aug=subset.color_aug,
        random_crop=subset.random_crop,
        face_crop_aug_range=subset.face_crop_aug_range,
        recursive=subset.recursive,
        words=_words(subset),
    )


def _words(subset: SubsetSettings) -> WordRules:
    return WordRules(
        caption_separator=subset.caption_separator,
        shuffle_caption=subset.shuffle_caption,
        keep_tokens=subset.keep_tokens,
        keep_tokens_separator=subset.keep_tokens_separator,
        secondary_separator=subset.secondary_separator,
        enable_wildcard=subset.enable_wildcard,
        caption_prefix=subset.caption_prefix,
        caption_suffix=subset.caption_suffix,
        caption_dropout_rate=subset.caption_dropout_rate,
        caption_dropout_every_n_epochs=subset.caption_dropout_every_n_epochs,
        caption_tag_dropout_rate=subset.caption_tag_dropout_rate,
        token_warmup_min=subset.token_warmup_min,
        token_warmup_step=subset.token_warmup_step,
    )
