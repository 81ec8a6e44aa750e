"""Addresses of stored tensors: a digest of everything that decides their bits.

In: digests of the image and the model part, geometry, precision. Out: 32 hexadecimal digits.
Where a path, a file name or a run took part, a renamed image would be encoded again; none does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from sdft.cache.shard import KEY_BYTES, StoredDtype
from sdft.dataset.pixels import PREPROCESSING_VERSION
from sdft.dataset.records import Size

LATENT_CHANNELS = 4
PIXELS_PER_CELL = 8
"""As in sdft.models.vae, which cannot be imported without torch."""

LatentKind = Literal["moments", "mean", "sample"]
"""Mean and log-variance of the posterior, its mean, or one draw that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentRecipe:
    """What all latents of one cache pass have in common."""

    vae_digest: str
    """Of the VAE's weights."""
    vae_dtype: str
    """What the VAE computes in; `fp16` and `fp32` give other bits."""
    kind: LatentKind
    dtype: StoredDtype
    """What is written."""

    def key(
        self,
        *,
        image_digest: str,
        resized: Sequence[int],
        crop: Sequence[int],
        flip: bool,
        interpolation: str | None,
    ) -> str:
        """Return the address of one image's latents, as hexadecimal digits."""
        suffix = geometry(resized=resized, crop=crop, flip=flip, interpolation=interpolation)
        return self.joined_keys([image_digest], [suffix]).hex()

    def joined_keys(self, image_digests: Iterable[str], geometries: Iterable[str]) -> bytes:
        """Return the addresses of many images' latents, KEY_BYTES each, one behind the other."""
        # A million of these are made at a start, so they are joined by hand. Only the last part
        # could hold the mark that stands between the parts.
        common = (
            f"latents|{PREPROCESSING_VERSION}|{self.vae_digest}|{self.vae_dtype}|{self.kind}|"
            f"{self.dtype}|"
        )
        return b"".join(
            [
                blake2b(f"{common}{one}|{shape}".encode("ascii"), digest_size=KEY_BYTES).digest()
                for one, shape in zip(image_digests, geometries, strict=True)
            ]
        )

    def npz_key(self, *, npz_digest: str, bucket: Size, flip: bool) -> str:
        """Return the address of latents that were taken over from an `.npz` of sd-scripts."""
        return digest_of("npz", self.dtype, npz_digest, bucket, bool(flip))


def geometry(
    *, resized: Sequence[int], crop: Sequence[int], flip: bool, interpolation: str | None
) -> str:
    """Return what is done with an image's pixels, as it stands in a key."""
    left, top, right, bottom = crop
    return (
        f"{resized[0]:d},{resized[1]:d}|{left:d},{top:d},{right:d},{bottom:d}|{flip:d}|"
        f"{interpolation!r}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecipe:
    """What all contexts of one cache pass have in common."""

    encoder_digest: str
    """Of the text encoder's weights."""
    encoder_dtype: str
    """What the text encoder computes in."""
    clip_skip: int | None
    max_token_length: int
    weighted: bool
    """Whether `(word:1.2)` in a caption is read as a weight."""
    cut_at_commas: bool = False
    """Whether a full chunk ends behind a comma."""
    padding: str
    """The tokenizer's padding, `eos` or `zero`."""
    dtype: StoredDtype
    """What is written."""

    def key(self, text: str) -> str:
        """Return the address of one caption's context, as hexadecimal digits."""
        return digest_of(
            "context",
            self.encoder_digest,
            self.encoder_dtype,
            self.clip_skip,
            self.max_token_length,
            self.weighted,
            self.cut_at_commas,
            self.padding,
            self.dtype,
            text,
        )


def digest_of(*parts: str | int | bool | Sequence[int] | None) -> str:
    """Return the hexadecimal digest of parts; JSON keeps their borders and types apart."""
    text = json.dumps(parts)
    return blake2b(text.encode("ascii"), digest_size=KEY_BYTES).hexdigest()
