"""Writes each image's bucket into its metadata file as `train_resolution`.

In: a metadata file, the folder of its images, the buckets by path. Out: the file with that field;
everything else stays, and `metadata undo` brings the old file back.
Source: sd-scripts' prepare_buckets_latents.py, which v0.9's fine_tune.py reads it from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sdft.dataset.listing import list_folder
from sdft.dataset.matching import match_keys
from sdft.dataset.metadata_file import fill_metadata, read_metadata
from sdft.dataset.records import Size
from sdft.dataset.shard_gathering import shard_names
from sdft.dataset.write_log import WriteLog
from sdft.errors import UserError

STEP_PX = 8
"""Sides are floored to whole latent pixels, as there."""


def write_train_resolutions(
    metadata_file: Path,
    image_dir: Path | None,
    buckets: Mapping[str, Size],
    *,
    recursive: bool,
    command_line: str,
) -> int:
    """Return how many entries got another `train_resolution`; without any, nothing is written.

    `buckets` are by absolute path.

    Raises: DataError, UserError where the file cannot be read; EnvironmentFault where it cannot be
        written.
    """
    entries = read_metadata(metadata_file)
    listing = list_folder(image_dir or metadata_file.parent, recursive=recursive)
    if image_dir and not listing.num_images() and shard_names(listing):
        raise UserError(
            what="train_resolution is not written for images in tar shards",
            where=str(image_dir),
            fix="leave --write_train_resolution out; buckets need no file",
        )
    changed = 0
    for key, (_, path) in match_keys(entries, listing, metadata_file).found.items():
        bucket = buckets.get(os.path.abspath(path))
        if bucket is None:
            continue
        sides = [side // STEP_PX * STEP_PX for side in bucket]
        changed += entries[key].get("train_resolution") != sides
        entries[key]["train_resolution"] = sides
    if changed:
        log = WriteLog(line=command_line, settings="train_resolution")
        with log.writing(metadata_file) as part:
            fill_metadata(part, entries, metadata_file)
        log.finish()
    return changed
