"""The border where settings end: from a Config to the records of the dataset layer.

In: a Config. Out: a PlannedDataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.load import Config
from sdft.dataset.buckets import plan_buckets
from sdft.dataset.index import build_index
from sdft.dataset.records import (
    BucketPlan,
    BucketSettings,
    DatasetIndex,
    Rejected,
    SubsetSpec,
    WordRules,
)
from sdft.errors import DataError
from sdft.events import Emit, ItemRejected, Notice

SHOWN = 5
"""Rejected images that an error names; all of them stand in the events and in `fates.jsonl`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDataset:
    """What there is and where it goes."""

    index: DatasetIndex
    plan: BucketPlan
    rejected: tuple[Rejected, ...]
    """By the index and by the buckets."""


def plan_dataset(config: Config, *, emit: Emit) -> PlannedDataset:
    """Index the images, give each its bucket, and say what cannot be used.

    Raises: DataError where nothing is left to train on.
    """
    index = build_index([subset_specs(dataset) for dataset in config.datasets], emit=emit)
    plan, unplaced = plan_buckets(index, [bucket_settings(d) for d in config.datasets])
    rejected = (*index.rejected, *unplaced)
    for problem in index.notices:
        emit(Notice(severity="warning", topic="dataset", message=str(problem)))
    for one in rejected:
        emit(ItemRejected(path=str(one.path), reason=one.reason))
    if not plan.placements:
        examples = "; ".join(f"{one.path.name}: {one.reason}" for one in rejected[:SHOWN])
        raise DataError(what=f"none of {len(rejected)} images can be used: {examples}")
    return PlannedDataset(index=index, plan=plan, rejected=rejected)


def subset_specs(dataset: DatasetSettings) -> list[SubsetSpec]:
    """Return where a dataset's images and captions come from."""
    return [
        SubsetSpec(
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
            words=word_rules(subset),
        )
        for subset in dataset.subsets
    ]


def word_rules(subset: SubsetSettings) -> WordRules:
    """Return what happens to a subset's captions."""
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


def bucket_settings(dataset: DatasetSettings) -> BucketSettings:
    """Return how a dataset's images are spread over resolutions."""
    return BucketSettings(
        resolution=dataset.resolution,
        enable_bucket=dataset.enable_bucket,
        min_bucket_reso=dataset.min_bucket_reso,
        max_bucket_reso=dataset.max_bucket_reso,
        bucket_reso_steps=dataset.bucket_reso_steps,
        bucket_no_upscale=dataset.bucket_no_upscale,
    )


def numbered_subsets(config: Config) -> Iterator[tuple[tuple[int, int], SubsetSettings]]:
    """Yield ((dataset, subset), settings) for every subset."""
    for dataset_number, dataset in enumerate(config.datasets):
        for subset_number, subset in enumerate(dataset.subsets):
            yield (dataset_number, subset_number), subset


def cache_folder(config: Config) -> Path:
    """Return where latents are kept: as set, or beside the file that names the images."""
    if config.training.cache_dir is not None:
        return config.training.cache_dir
    if config.path is not None:
        return config.path.parent / ".sdft-cache"
    first = config.datasets[0].subsets[0]
    images = first.image_dir or (first.metadata_file.parent if first.metadata_file else Path())
    return images.parent / ".sdft-cache"
