"""The frozen records that the dataset's stages exchange.

SubsetSpec (what was asked) -> DatasetIndex of Items (what there is) -> BucketPlan of Placements
(where each item goes). What cannot be used leaves the stages as Rejected, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.errors import Problem

Size = tuple[int, int]
"""Width and height in pixels."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are just outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRules:
    """How a raw caption becomes the words that the model reads. The defaults change nothing."""

    caption_separator: str = ","
    shuffle_caption: bool = False
    keep_tokens: int = 0
    """How many leading tags stay in front, whole."""
    keep_tokens_separator: str = ""
    """Text between fixed tags, flexible tags and a fixed tail; empty for none."""
    secondary_separator: str | None = None
    enable_wildcard: bool = False
    caption_prefix: str | None = None
    caption_suffix: str | None = None
    caption_dropout_rate: float = 0.0
    caption_dropout_every_n_epochs: int = 0
    caption_tag_dropout_rate: float = 0.0
    token_warmup_min: int = 1
    token_warmup_step: float = 0.0
    """Steps; a value below 1 is a share of all training steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetSpec:
    """One folder, or one metadata file, of images and captions. At least one of the two is set."""

    image_dir: Path | None = None
    metadata_file: Path | None = None
    """Captions come from here instead of from files beside the images."""
    caption_extension: str = ".caption"
    class_tokens: str | None = None
    """Words for images that have no caption; an empty text says that none are wanted."""
    num_repeats: int = 1
    """Uses of each image in an epoch; below 1 the subset is left out."""
    is_reg: bool = False
    alpha_mask: bool = False
    flip_aug: bool = False
    color_aug: bool = False
    random_crop: bool = False
    face_crop_aug_range: tuple[float, float] | None = None
    recursive: bool = False
    words: WordRules = WordRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One training image with its raw words. What all items of a subset share is in SubsetSpec."""

    key: str
    """Path relative to the subset's folder, `/` between the parts; absolute where it lies
    elsewhere."""
    path: Path
    size: Size
    """Upright: after the orientation of the EXIF block."""
    caption: str
    """As read, before any rule; several lines only with `enable_wildcard`."""
    dataset: int
    subset: int
    num_repeats: int
    file_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An image that is not trained on, and why."""

    path: Path
    reason: str
    dataset: int
    subset: int
    size: Size | None = None
    """None where not even the header could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetIndex:
    """All images of all subsets; items ordered by (dataset, subset, key)."""

    items: Sequence[Item]
    """Of a large index an ItemTable, which makes records when they are asked for."""
    rejected: tuple[Rejected, ...]
    notices: tuple[Problem, ...]
    """What a person should know but what stops nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSettings:
    """How a dataset's images are spread over training resolutions."""

    resolution: Size
    """Its area is the upper limit of every bucket's area."""
    enable_bucket: bool = True
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one item goes: shrunk or enlarged to `resized`, then cut to `crop`."""

    item: Item
    bucket: Size
    resized: Size
    crop: Box
    """Pixels of the already resized image; as large as the bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPlan:
    """The placements of the used items, in the index' order."""

    placements: Sequence[Placement]
    """Of a large plan a PlacementTable, which makes records when they are asked for."""
