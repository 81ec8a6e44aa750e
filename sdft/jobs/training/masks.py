"""The masks of a planned dataset: alpha channels, or pictures of the images' names.

In: a Config, the placements, their latents' keys. Out: for each placement where its mask lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sdft.cache.latents import LatentKeys
from sdft.cache.masks import MaskSource, cache_masks
from sdft.cache.store import TensorStore
from sdft.config.load import Config
from sdft.dataset.masks import MASK_EXTENSIONS, find_masks
from sdft.dataset.records import Placement
from sdft.errors import DataError, Problem
from sdft.events import Emit
from sdft.jobs.stores import file_digests, tensor_store

NUM_MISSING_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedMasks:
    """Where the masks of a plan lie."""

    store: TensorStore | None
    """None where there are no masks."""
    keys: tuple[str | None, ...]
    """One for each placement, in the plan's order."""


def cached_masks(
    config: Config,
    placements: Sequence[Placement],
    latents: Sequence[LatentKeys],
    *,
    emit: Emit,
) -> CachedMasks:
    """Make the masks that the cache lacks and return where all lie.

    Placements without latents need none.

    Raises: DataError naming images whose mask picture is missing or cannot be used.
    """
    if not any(
        subset.alpha_mask or subset.conditioning_data_dir
        for dataset in config.datasets
        for subset in dataset.subsets
    ):
        return CachedMasks(store=None, keys=(None,) * len(placements))
    used = [place if keys.usable else None for place, keys in zip(placements, latents, strict=True)]
    sources = mask_sources(config, used)
    if not any(sources):
        return CachedMasks(store=None, keys=(None,) * len(placements))
    store = tensor_store(config, "masks", emit)
    with file_digests(config, emit) as digests:
        result = cache_masks(
            placements,
            sources,
            store=store,
            digests=digests,
            emit=emit,
            max_workers=config.training.max_data_loader_n_workers or 1,
        )
    return CachedMasks(store=store, keys=result.keys)


def mask_sources(config: Config, placements: Sequence[Placement | None]) -> list[MaskSource | None]:
    """Return the file that each placement's mask is in.

    Raises: DataError naming images without a mask picture.
    """
    subsets = {
        (number, position): subset
        for number, dataset in enumerate(config.datasets)
        for position, subset in enumerate(dataset.subsets)
    }
    pictures = {
        place: find_masks(subset.conditioning_data_dir, recursive=subset.recursive)
        for place, subset in subsets.items()
        if subset.conditioning_data_dir is not None
    }
    sources: list[MaskSource | None] = []
    missing: list[Problem] = []
    for placement in placements:
        if placement is None:
            sources.append(None)
            continue
        item = placement.item
        place = (item.dataset, item.subset)
        if place in pictures:
            path = _mask_of(item.key, pictures[place])
            if path is None:
                folder = subsets[place].conditioning_data_dir
                missing.append(Problem(f"no mask in {folder}", where=str(item.path)))
            sources.append(MaskSource(path=path or item.path, kind="picture"))
        elif subsets[place].alpha_mask:
            sources.append(MaskSource(path=item.path, kind="alpha"))
        else:
            sources.append(None)
    if missing:
        summary = Problem(
            f"{len(missing)} images have no mask",
            fix=f"a mask has its image's name and one of {', '.join(MASK_EXTENSIONS)}",
        )
        raise DataError(problems=[*missing[:NUM_MISSING_SHOWN], summary])
    return sources


def _mask_of(key: str, pictures: Mapping[str, Path]) -> Path | None:
    """Find a mask by the image's path within its folder, else by its bare name."""
    stem = PurePosixPath(key).with_suffix("")
    return pictures.get(stem.as_posix()) or pictures.get(stem.name)
