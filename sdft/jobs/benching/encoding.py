"""Measures caching of latents beside the VAE alone, on photographs that are made for it."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdft.cache.digests import FileDigests
from sdft.cache.encoders import VaeEncoder
from sdft.cache.keys import LatentRecipe
from sdft.cache.latents import cache_latents
from sdft.cache.pipeline import Picture, encode_pictures
from sdft.cache.store import TensorStore
from sdft.dataset.pixels import decode_rgb, fit
from sdft.dataset.records import BucketPlan, Item, Placement
from sdft.jobs.benching.figures import BenchRow
from sdft.jobs.benching.peak import peak_of, vae_flops

ROUNDS = 3
MIN_ROUND_S = 2.0
MAX_PICTURES = 512
_FIRST_PICTURES = 8


def encode(
    vae: Any, folder: Path, *, side_px: int, batch_size: int, dtype: torch.dtype
) -> list[BenchRow]:
    """Encode pictures twice the training size; return the rows."""
    device = next(vae.parameters()).device
    encoder = VaeEncoder(vae)
    photo = (3 * side_px, 2 * side_px)
    num_pictures = max(batch_size, _FIRST_PICTURES)
    placements = [_photo(folder, number, photo, side_px) for number in range(num_pictures)]
    pictures = [_picture(number, one) for number, one in enumerate(placements)]
    _alone_s(pictures, encoder, batch_size)
    once_s = _alone_s(pictures, encoder, batch_size)
    # A round lasts long enough for the start of the threads not to count.
    wanted = min(MAX_PICTURES, int(MIN_ROUND_S / once_s * num_pictures))
    for number in range(num_pictures, wanted):
        placements.append(_photo(folder, number, photo, side_px))
        pictures.append(_picture(number, placements[-1]))
    alone_s = whole_s = float("inf")
    for number in range(ROUNDS):
        alone_s = min(alone_s, _alone_s(pictures, encoder, batch_size))
        whole_s = min(whole_s, _whole_s(placements, encoder, folder / str(number), batch_size))
    rate = len(pictures) / whole_s
    peak = peak_of(device, dtype)
    flops = vae_flops(vae.config, side_px)
    return [
        BenchRow(
            name="encode: cache-latents",
            value=rate,
            unit="images/s",
            against="the VAE alone on the same pixels",
            ratio=alone_s / whole_s,
        ),
        BenchRow(name="encode: the VAE alone", value=len(pictures) / alone_s, unit="images/s"),
        BenchRow(
            name="encode: arithmetic of the VAE",
            value=rate * flops / 1e12,
            unit="TFLOP/s",
            against=f"{peak.flops / 1e12:.4g} TFLOP/s, {peak.source}",
            ratio=rate * flops / peak.flops,
        ),
    ]


def _alone_s(pictures: list[Picture], encoder: VaeEncoder, batch_size: int) -> float:
    start_s = perf_counter()
    for _ in encode_pictures(pictures, encoder.submit, batch_size=batch_size):
        pass
    return perf_counter() - start_s


def _whole_s(
    placements: list[Placement], encoder: VaeEncoder, folder: Path, batch_size: int
) -> float:
    recipe = LatentRecipe(vae_digest="random", vae_dtype="any", kind="sample", dtype="fp32")
    start_s = perf_counter()
    folder.mkdir()
    with FileDigests(folder / "digests.sqlite") as digests:
        cache_latents(
            BucketPlan(placements=tuple(placements)),
            store=TensorStore(folder / "latents"),
            digests=digests,
            recipe=recipe,
            rules={},
            load_encoder=lambda: encoder,
            vae_batch_size=batch_size,
        )
    return perf_counter() - start_s


def _photo(folder: Path, number: int, size: tuple[int, int], side_px: int) -> Placement:
    """Write a smooth picture with noise, which has about as many bytes a pixel as a photograph."""
    width, height = size
    draws = np.random.default_rng(number)
    coarse = draws.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    noise = draws.standard_normal(smooth.shape, np.float32) * 6
    path = folder / f"{number}.jpg"
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(path, quality=92)
    status = path.stat()
    resized = (width * side_px // height, side_px)
    left = (resized[0] - side_px) // 2
    return Placement(
        item=Item(
            key=path.name,
            path=path,
            size=size,
            caption="",
            dataset=0,
            subset=0,
            num_repeats=1,
            file_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
        ),
        bucket=(side_px, side_px),
        resized=resized,
        crop=(left, 0, left + side_px, side_px),
    )


def _picture(number: int, one: Placement) -> Picture:
    rgb_HWC = fit(decode_rgb(one.item.path), one.resized, one.crop, None)
    return Picture(number=number, key="", path=one.item.path, rgb_HWC=rgb_HWC)
