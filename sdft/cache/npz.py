"""Latents that sd-scripts left beside the pictures, read as they lie.

In: a picture's path and size, its bucket. Out: [4, h, w] float32, or the reason why not.
Such a file says neither which VAE made it nor from which bytes, so what can be checked is:
the shape, values that half precision holds, the picture's size. Nothing in it is unpickled, and
no array is read before its declared shape fits.

| era | file | arrays |
| 2022-12 on | <stem>.npz, <stem>_flip.npz | arr_0 |
| mid-2023 | the same two | latents, original_size, crop_left_top |
| 2023-07-15 to v0.9.1 | <stem>.npz | latents, latents_flipped, original_size, crop_ltrb |
| current | <stem>_<W:04d>x<H:04d>_sd.npz | the same |
| newer models' form | as above | names end in _<h>x<w>, in latent cells |
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from sdft.cache.digests import KnownFile, read_with_digest
from sdft.cache.keys import LATENT_CHANNELS, PIXELS_PER_CELL
from sdft.cache.posterior import fits
from sdft.dataset.records import Size
from sdft.errors import DataError

FLIP_MARK = "_flip"

_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
"""What the standard library and numpy raise for damaged, encrypted or foreign zip members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldLatents:
    """What one file gave."""

    known: KnownFile
    latents_Chw: np.ndarray
    """Unscaled float32, one draw that was made once."""


def npz_names(picture: Path, size: Size, *, flip: bool) -> tuple[Path, ...]:
    """Return the files that may hold a picture's latents, the best first.

    `size` is the picture's own; sd-scripts names it as stored, before any EXIF rotation, so both
    are tried. Files ending in `_sdxl.npz` are left alone: fine_tune.py wrote SD latents under that
    name, but so did SDXL, whose VAE is another.
    """
    width, height = size
    plain = picture.with_suffix(".npz")
    sized = [
        picture.with_name(f"{picture.stem}_{first:04d}x{second:04d}_sd.npz")
        for first, second in dict.fromkeys([(width, height), (height, width)])
    ]
    flipped = [picture.with_name(f"{picture.stem}{FLIP_MARK}.npz")] if flip else []
    # sd-scripts itself prefers the plain name.
    return (*flipped, plain, *sized)


def read_npz(path: Path, *, bucket: Size, size: Size, flip: bool) -> OldLatents:
    """Return a picture's latents from one file.

    Raises: DataError with the reason; FileNotFoundError.
    """
    file = read_with_digest(path)
    shape = (LATENT_CHANNELS, bucket[1] // PIXELS_PER_CELL, bucket[0] // PIXELS_PER_CELL)
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            _require_size(archive, size)
            name = _array_name(archive, path, shape, flip=flip)
            latents_Chw = _read_array(archive, name, shape)
    except _BROKEN as error:
        raise DataError(what=f"it cannot be read ({error})") from error
    if not fits(latents_Chw, "fp16"):
        raise DataError(what="its latents are not finite")
    return OldLatents(known=file.known, latents_Chw=latents_Chw)


def _array_name(archive: zipfile.ZipFile, path: Path, shape: tuple[int, ...], *, flip: bool) -> str:
    """Return which array holds the latents. In a `_flip` file all are mirrored ones."""
    is_own_file = path.stem.endswith(FLIP_MARK) == flip
    stem = "latents" if is_own_file else "latents_flipped"
    candidates = [f"{stem}_{shape[1]}x{shape[2]}", stem] + ["arr_0"] * is_own_file
    held = {name.removesuffix(".npy") for name in archive.namelist()}
    for name in candidates:
        if name in held:
            return name
    raise DataError(what=f"it has no {stem}")


def _require_size(archive: zipfile.ZipFile, size: Size) -> None:
    if "original_size.npy" not in archive.namelist():
        return
    width, height = (int(side) for side in _read_small(archive, "original_size", (2,)))
    # Before EXIF rotation in the file, after it here.
    if size not in ((width, height), (height, width)):
        raise DataError(
            what=f"it was made from a picture of {width} x {height} px, "
            f"which is {size[0]} x {size[1]} px now"
        )


def _read_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        found, fortran_order, dtype = _header(member)
        if found != shape:
            raise DataError(
                what=f"its latents are {_by(found)}, those of this bucket are {_by(shape)}"
            )
        if dtype.kind != "f" or fortran_order:
            raise DataError(what=f"its latents are of an unknown kind ({dtype})")
        content = member.read(math.prod(shape) * dtype.itemsize)
    values = np.frombuffer(content, dtype=dtype).reshape(shape)
    return values.astype(np.float32)


def _read_small(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Sequence[float]:
    with archive.open(f"{name}.npy") as member:
        found, _, dtype = _header(member)
        if found != shape or dtype.kind not in "iuf":
            raise DataError(what=f"its {name} cannot be read")
        content = member.read(math.prod(shape) * dtype.itemsize)
    numbers: list[float] = np.frombuffer(content, dtype=dtype).tolist()
    return numbers


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = npy.read_magic(member)
    if version == (1, 0):
        return npy.read_array_header_1_0(member)
    return npy.read_array_header_2_0(member)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
