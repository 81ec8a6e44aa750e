"""Where items' latents come from: the cache, or their pixels and the VAE.

In: the items of a micro-batch with the addresses of their uses. Out: their scaled latents, or why
one has none. Pixels are read by worker processes and encoded here, in the training process.

B batch, C latent channels, H and W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sdft.cache.posterior import LOG_VARIANCE_RANGE, fits
from sdft.dataset.augment import Drawn, PictureJob, is_mirrored
from sdft.dataset.picture_workers import PictureWorkers
from sdft.errors import DataError
from sdft.models.vae import LATENT_CHANNELS, LATENT_SCALE, PIXELS_PER_CELL
from sdft.streams import Address
from sdft.train.noise import generator

LatentDraw = Literal["sample", "mean"]
"""Which latents an image has: a draw from what the VAE says of it, or the mean of that."""

PICTURES_AHEAD = 2
"""So many are asked for ahead for each worker: one in work, one to go on with."""


class Encoder(Protocol):
    """The VAE as seen here; `sdft.cache.encoders.VaeEncoder` is one."""

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to encode uint8; the result gives [B, 2C, H, W] float32: mean, log-variance."""

    def explain_not_finite(self) -> tuple[str, str]:
        """Return why a latent may be NaN or infinite, and the fix."""


class HasLatents(Protocol):
    """The part of an item that is read here."""

    @property
    def latents(self) -> str | None:
        """The key of its latents in the cache; none where they are made from its pixels."""

    @property
    def flipped_latents(self) -> str | None: ...

    @property
    def picture(self) -> PictureJob | None: ...


@dataclass(frozen=True, slots=True)
class Remark:
    """Something a person should know of one image in this batch."""

    path: str
    text: str
    is_failure: bool
    """The image could not be used and counts 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The latents of one use."""

    latents_CHW: Tensor
    """Scaled to near unit variance; zeros where the image could not be used."""
    remark: Remark | None = None

    @property
    def is_usable(self) -> bool:
        return self.remark is None or not self.remark.is_failure


Pending = Callable[[], Drawn] | None
"""A picture that was asked for; none where the cache has the latents."""


@dataclass(frozen=True, kw_only=True)
class LatentSource:
    """Gives latents. The same uses always give the same."""

    read_latents: Callable[[str], np.ndarray]
    """Returns [C, H, W] latents, or [2C, H, W] mean and log-variance."""
    fetch_latents: Callable[[Sequence[str]], None] | None = None
    """Hears which will be read next: where they lie elsewhere, they are asked for at once."""
    holds_moments: bool
    draw: LatentDraw = "sample"
    """Of moments, cached or not."""
    workers: PictureWorkers = field(default_factory=lambda: PictureWorkers(0))
    encoder: Encoder | None = None
    """None where every item is in the cache."""
    encode_batch_size: int = 1
    stops_at_failure: bool = True
    """Whether an image that cannot be used ends the run; else it counts 0."""

    @property
    def pictures_ahead(self) -> int:
        """Return how many pictures should be asked for before they are needed."""
        return 0 if self.encoder is None else PICTURES_AHEAD * self.workers.num_workers

    def begin(
        self, items: Sequence[HasLatents], addresses: Sequence[Address]
    ) -> Callable[[], list[Found]]:
        """Ask for the latents of some uses of one bucket; the result waits for them.

        Raises (the result): DataError where an image cannot be used and that ends the run, or
            where latents are not finite; EnvironmentFault where a worker died.
        """
        pending: list[Pending] = [
            self.workers.begin(item.picture, address)
            if item.latents is None and item.picture is not None
            else None
            for item, address in zip(items, addresses, strict=True)
        ]
        return lambda: self._finish(items, addresses, pending)

    def close(self) -> None:
        """End what runs beside the training process."""
        self.workers.close()

    def _finish(
        self, items: Sequence[HasLatents], addresses: Sequence[Address], pending: list[Pending]
    ) -> list[Found]:
        if self.fetch_latents is not None:
            uses = zip(items, addresses, strict=True)
            keys = (_cached_key(item, address) for item, address in uses)
            self.fetch_latents([key for key in keys if key is not None])
        drawn = [None if one is None else one() for one in pending]
        pictures = [one.rgb_HWC for one in drawn if one is not None and one.rgb_HWC is not None]
        moments = iter(self._encode(pictures))
        found = []
        for item, address, picture in zip(items, addresses, drawn, strict=True):
            if picture is None:
                found.append(Found(latents_CHW=self._cached(item, address)))
                continue
            assert item.picture is not None, "it was asked for"
            remark = self._remark(item.picture, picture)
            if picture.rgb_HWC is None:
                width, height = item.picture.bucket
                shape = (LATENT_CHANNELS, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)
                found.append(Found(latents_CHW=torch.zeros(shape), remark=remark))
                continue
            moments_CHW = next(moments)
            self._require_finite(moments_CHW, item.picture)
            latents_CHW = self._drawn(torch.from_numpy(moments_CHW), address)
            found.append(Found(latents_CHW=latents_CHW * LATENT_SCALE, remark=remark))
        return found

    def _cached(self, item: HasLatents, address: Address) -> Tensor:
        key = _cached_key(item, address)
        assert key is not None, "an item has cached latents or a picture"
        stored_CHW = torch.from_numpy(np.array(self.read_latents(key))).float()
        if not bool(torch.isfinite(stored_CHW).all()):
            raise DataError(
                what="its cached latents are not finite",
                where=address.key,
                fix="remove the cache folder; latents are made again",
            )
        if self.holds_moments:
            stored_CHW = self._drawn(stored_CHW, address)
        return stored_CHW * LATENT_SCALE

    def _drawn(self, moments_CHW: Tensor, address: Address) -> Tensor:
        mean_CHW, log_variance_CHW = moments_CHW.chunk(2)
        if self.draw == "mean":
            return mean_CHW
        noise_CHW = torch.randn(mean_CHW.shape, generator=generator(address, "posterior"))
        return mean_CHW + torch.exp(0.5 * log_variance_CHW) * noise_CHW

    def _encode(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """Return moments with their log-variance in the posterior's range; [2C, H, W] each.

        Every call of the VAE has the same number of pictures, the last one being repeated: else
        an item's bits would depend on how many others are beside it.
        """
        results: list[np.ndarray] = []
        for _, same_size in groupby(pictures, key=lambda rgb_HWC: rgb_HWC.shape):
            group = list(same_size)
            for start in range(0, len(group), self.encode_batch_size):
                part = group[start : start + self.encode_batch_size]
                filling = [part[-1]] * (self.encode_batch_size - len(part))
                assert self.encoder is not None, "pictures were asked for"
                moments_BCHW = self.encoder.submit(np.stack(part + filling))()
                results += [np.array(moments) for moments in moments_BCHW[: len(part)]]
        for moments_CHW in results:
            log_variance_CHW = moments_CHW[LATENT_CHANNELS:]
            np.clip(log_variance_CHW, *LOG_VARIANCE_RANGE, out=log_variance_CHW)
        return results

    def _require_finite(self, moments_CHW: np.ndarray, job: PictureJob) -> None:
        if fits(moments_CHW, "fp32"):
            return
        assert self.encoder is not None, "it encoded this"
        cause, fix = self.encoder.explain_not_finite()
        raise DataError(what=f"its latents are not finite: {cause}", where=str(job.path), fix=fix)

    def _remark(self, job: PictureJob, drawn: Drawn) -> Remark | None:
        if drawn.rgb_HWC is not None:
            text = "it changed after it was indexed; it is used as it is now"
            texts = [*drawn.notes, *([text] if drawn.has_changed else [])]
            return Remark(str(job.path), "; ".join(texts), False) if texts else None
        if self.stops_at_failure:
            raise DataError(
                what=drawn.problem,
                where=str(job.path),
                fix='mend it and resume, or set unreadable_image = "skip" and resume',
            )
        return Remark(str(job.path), drawn.problem, True)


def _cached_key(item: HasLatents, address: Address) -> str | None:
    if item.flipped_latents is not None and is_mirrored(address):
        return item.flipped_latents
    return item.latents
