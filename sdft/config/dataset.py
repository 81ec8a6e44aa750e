"""The settings of images and captions: the schema of a dataset file, and its resolved records.

Each key is declared once, with the levels it may stand on: G in [general], D in [[datasets]],
S in [[datasets.subsets]]. After inheritance the same models hold what counts for each subset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from sdft.config.preset import PresetName
from sdft.config.refused import REFUSED
from sdft.config.settings import Setting, setting, settings_of

Interpolation = Literal[
    "lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area", "box"
]

_PAIR_WORDS = 'a side in pixels, [width, height], or "width,height"'


def _numbers(value: object, what: str) -> list[object]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    raise ValueError(f"it must be {what}")


def size_of(value: object) -> object:
    """Read 512, "512", "512,768" or [512, 768] as (width, height)."""
    sides = _numbers(value, _PAIR_WORDS)
    if len(sides) == 1:
        sides = sides * 2
    if len(sides) != 2 or not all(_is_positive_whole(side) for side in sides):
        raise ValueError(f"it must be {_PAIR_WORDS}, whole numbers above 0")
    return int(str(sides[0])), int(str(sides[1]))


def _is_positive_whole(side: object) -> bool:
    return str(side).isascii() and str(side).isdecimal() and int(str(side)) > 0


def face_range_of(value: object) -> object:
    """Read "2.0,4.0" or [2, 4] as (low, high)."""
    if value is None:
        return None
    ends = _numbers(value, "two numbers")
    try:
        low, high = (float(str(end)) for end in ends)
    except ValueError:
        raise ValueError("it must be two numbers, low and high") from None
    if not 0 < low <= high:
        raise ValueError("the first number must be above 0 and not above the second")
    return low, high


Size = Annotated[tuple[int, int], BeforeValidator(size_of)]
FaceRange = Annotated[tuple[float, float] | None, BeforeValidator(face_range_of)]


class SubsetSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True):
    """One folder or metadata file of images, and what happens to its captions."""

    image_dir: Path | None = setting(
        None, help="Folder of the images.", group="images", levels="S", common=True
    )
    metadata_file: Path | None = setting(
        None,
        help="Captions of the images in one .json, .jsonl or .parquet.",
        group="images",
        levels="S",
    )
    caption_extension: str = setting(
        ".caption",
        help="Extension of the caption files beside the images.",
        group="captions",
        levels="GDS",
        common=True,
    )
    class_tokens: str | None = setting(
        None, help="Caption of images that have no caption file.", group="captions", levels="GDS"
    )
    num_repeats: int = setting(
        1,
        ge=0,
        help="How often each image is used in an epoch; 0 leaves the subset out.",
        group="images",
        levels="GDS",
        flag="dataset_repeats",
    )
    is_reg: bool = setting(
        False,
        help="Images that show what the class looked like before.",
        group="images",
        levels="S",
    )
    conditioning_data_dir: Path | None = setting(
        None,
        help="Folder of mask pictures, named as the images are; needs masked_loss.",
        group="images",
        levels="S",
    )
    alpha_mask: bool = setting(
        False, help="Learn less where the image is transparent.", group="images", levels="GDS"
    )
    recursive: bool = setting(
        False, help="Take images from the folders within, too.", group="images", levels="GDS"
    )
    resize_interpolation: Interpolation | None = setting(
        None,
        help="How images are resized; area when smaller and lanczos when larger if not set.",
        group="images",
        levels="GDS",
    )
    flip_aug: bool = setting(
        False, help="Mirror half of the images.", group="images", levels="GDS", common=True
    )
    color_aug: bool = setting(
        False,
        help="Change colours a little; excludes cached latents.",
        group="images",
        levels="GDS",
    )
    random_crop: bool = setting(
        False,
        help="Crop anywhere, not in the middle; excludes cached latents.",
        group="images",
        levels="GDS",
    )
    face_crop_aug_range: FaceRange = setting(
        None,
        help="Crop around faces, between these multiples of a face's size.",
        group="images",
        levels="GDS",
        wanted="two numbers, such as [2.0, 4.0]",
    )
    shuffle_caption: bool = setting(
        False, help="Shuffle the tags on every use.", group="captions", levels="GDS", common=True
    )
    caption_separator: str = setting(",", help="Text between tags.", group="captions", levels="GDS")
    keep_tokens: int = setting(
        0,
        ge=0,
        help="Tags at the start that stay in place.",
        group="captions",
        levels="GDS",
        unit="tags",
        common=True,
    )
    keep_tokens_separator: str = setting(
        "", help="Text between the fixed tags and the others.", group="captions", levels="GDS"
    )
    secondary_separator: str | None = setting(
        None, help="Text that holds parts of one tag together.", group="captions", levels="GDS"
    )
    enable_wildcard: bool = setting(
        False,
        help="Choose one of {a|b|c}, and one line of several.",
        group="captions",
        levels="GDS",
    )
    caption_prefix: str | None = setting(
        None, help="Text before every caption.", group="captions", levels="GDS"
    )
    caption_suffix: str | None = setting(
        None, help="Text after every caption.", group="captions", levels="GDS"
    )
    caption_dropout_rate: float = setting(
        0.0, ge=0, le=1, help="Share of uses without any caption.", group="captions", levels="GDS"
    )
    caption_dropout_every_n_epochs: int = setting(
        0, ge=0, help="Leave out all captions in each n-th epoch.", group="captions", levels="GDS"
    )
    caption_tag_dropout_rate: float = setting(
        0.0, ge=0, le=1, help="Share of tags that are left out.", group="captions", levels="GDS"
    )
    token_warmup_min: int = setting(
        1,
        ge=1,
        help="Tags that the captions begin the run with.",
        group="captions",
        levels="GDS",
        unit="tags",
    )
    token_warmup_step: float = setting(
        0.0,
        ge=0,
        help="Step, or share of the run, from which captions have all their tags.",
        group="captions",
        levels="GDS",
        unit="steps or share",
    )


class DatasetSettings(
    BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
):
    """Images that are trained at one resolution and batch size."""

    resolution: Size = setting(
        (512, 512),
        help="Training size: a side, or width and height.",
        group="images",
        levels="GD",
        unit="px",
        common=True,
        wanted=_PAIR_WORDS,
    )
    batch_size: int = setting(
        1,
        ge=1,
        help="Images in a batch.",
        group="images",
        levels="GD",
        unit="images",
        common=True,
        flag="train_batch_size",
    )
    enable_bucket: bool = setting(
        False,
        help="Train each image near its own shape.",
        group="buckets",
        levels="GD",
        common=True,
    )
    min_bucket_reso: int = setting(
        256, ge=8, help="Smallest side of a bucket.", group="buckets", levels="GD", unit="px"
    )
    max_bucket_reso: int = setting(
        1024, ge=8, help="Largest side of a bucket.", group="buckets", levels="GD", unit="px"
    )
    bucket_reso_steps: int = setting(
        64, ge=8, help="Sides are multiples of this.", group="buckets", levels="GD", unit="px"
    )
    bucket_no_upscale: bool = setting(
        False, help="Never enlarge an image.", group="buckets", levels="GD"
    )
    resize_interpolation: Interpolation | None = setting(
        None,
        help="How images are resized, where a subset says nothing else.",
        group="images",
        levels="GDS",
    )
    validation_split: float = setting(
        0.0,
        ge=0,
        lt=1,
        help="Share of the images that are held out, to measure how well others are learnt.",
        group="validation",
        levels="GD",
    )
    validation_seed: int | None = setting(
        None,
        ge=0,
        help="Seed that chooses the images held out and their noise; 0 if not set.",
        group="validation",
        levels="GD",
    )
    subsets: tuple[SubsetSettings, ...] = ()


class SourceSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True):
    """Where datasets come from. After loading, only the datasets themselves are left of these."""

    dataset_config: Path | None = setting(
        None, help="Dataset file, .toml or .json.", group="images", common=True
    )
    train_data_dir: Path | None = setting(
        None, help="Folder of images, where there is no dataset file.", group="images", common=True
    )
    in_json: Path | None = setting(
        None, help="Metadata file of train_data_dir.", group="images", common=True
    )
    config_file: Path | None = setting(None, help="Another way to name CONFIG.", group="images")
    preset: PresetName | None = setting(
        None,
        help="Settings that ship with the program; CONFIG and options win over them.",
        group="model",
        common=True,
    )
    caption_extention: str | None = setting(
        None, help="Older spelling of caption_extension.", group="captions"
    )


def dataset_settings() -> tuple[Setting, ...]:
    """Return every setting of images and captions that may be a flag, each name once."""
    by_name = {
        setting.name: setting
        for model in (SourceSettings, DatasetSettings, SubsetSettings)
        for setting in settings_of(model)
    }
    # image_dir and metadata_file are train_data_dir and in_json on the command line.
    return tuple(one for one in by_name.values() if one.levels != "S" and one.name not in REFUSED)
