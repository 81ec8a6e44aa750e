"""Makes batches: latents, noise, timesteps and token ids of the items of a micro-batch.

In: the plan's items and their cached latents. Out: Batch records on the CPU, then on the device.
B batch, C latent channels, H and W latent height and width, K chunks of 77 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sdft.dataset.captions import words_of
from sdft.dataset.records import WordRules
from sdft.models.vae import LATENT_SCALE
from sdft.streams import Address
from sdft.train.noise import NoiseRecipe, draw_noise, generator
from sdft.train.sampler import Step, Use
from sdft.train.timesteps import draw_timestep


class Tokenizer(Protocol):
    """The part of a tokenizer that training needs."""

    def chunks(self, text: str, max_token_length: int) -> list[list[int]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingItem:
    """One placed image with what training needs of it."""

    key: str
    subset: int
    caption: str
    """As read from the files, before shuffling and dropout."""
    words: WordRules
    latents: str
    """The key of its latents in the cache."""
    flipped_latents: str | None
    """The key of the mirrored image's latents; none where the item is never mirrored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one forward pass sees. Tensors are float32 but for the integer ones."""

    latents_BCHW: Tensor
    """Scaled to near unit variance."""
    noise_BCHW: Tensor
    """What the network should find."""
    input_noise_BCHW: Tensor
    """What is added to the latents: the same, except under input perturbation."""
    timesteps_B: Tensor
    ids_BKS: Tensor
    weights_B: Tensor
    """Each item's part of the step's loss."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; copies to a GPU do not wait."""
        if device.type == "cpu":
            return self
        moved = {
            name: getattr(self, name).pin_memory().to(device, non_blocking=True)
            for name in self.__slots__
            if name != "input_noise_BCHW"
        }
        same = self.input_noise_BCHW is self.noise_BCHW
        moved["input_noise_BCHW"] = (
            moved["noise_BCHW"]
            if same
            else self.input_noise_BCHW.pin_memory().to(device, non_blocking=True)
        )
        return Batch(**moved)

    def __len__(self) -> int:
        return self.latents_BCHW.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMaker:
    """Makes the batch of some uses; the same uses always give the same batch."""

    items: Sequence[TrainingItem]
    read_latents: Callable[[str], np.ndarray]
    """Returns [C, H, W] latents, or [2C, H, W] mean and log-variance."""
    holds_moments: bool
    tokenizer: Tokenizer
    max_token_length: int
    seed: int
    noise: NoiseRecipe
    min_timestep: int
    max_timestep: int
    max_train_steps: int

    def address(self, step: Step, use: Use, epoch: int) -> Address:
        """Return where the randomness of one use of an item comes from."""
        item = self.items[use.placement]
        return Address(
            seed=self.seed,
            epoch=epoch,
            dataset=step.dataset,
            subset=item.subset,
            key=item.key,
            repeat=use.repeat,
        )

    def words(self, step: Step, use: Use, *, epoch: int, step_number: int) -> str:
        """Return what the text encoder will read for one use of an item."""
        item = self.items[use.placement]
        address = self.address(step, use, epoch)
        return words_of(item.caption, item.words, address, step_number, self.max_train_steps)

    def make(self, step: Step, uses: Sequence[Use], *, epoch: int, step_number: int) -> Batch:
        """Return the batch of a part of a step.

        Units: `epoch` counts from 1; `step_number` is the number of updates done before this one.
        """
        latents, noises, input_noises, timesteps, ids = [], [], [], [], []
        for use in uses:
            address = self.address(step, use, epoch)
            latents_CHW = self._latents(use, address)
            noise_CHW, input_noise_CHW = draw_noise(address, latents_CHW, self.noise)
            latents.append(latents_CHW)
            noises.append(noise_CHW)
            input_noises.append(input_noise_CHW)
            timesteps.append(
                draw_timestep(
                    address, min_timestep=self.min_timestep, max_timestep=self.max_timestep
                )
            )
            words = self.words(step, use, epoch=epoch, step_number=step_number)
            ids.append(self.tokenizer.chunks(words, self.max_token_length))
        noise_BCHW = torch.stack(noises)
        return Batch(
            latents_BCHW=torch.stack(latents),
            noise_BCHW=noise_BCHW,
            input_noise_BCHW=torch.stack(input_noises) if self.noise.ip_noise_gamma else noise_BCHW,
            timesteps_B=torch.tensor(timesteps),
            ids_BKS=torch.tensor(ids),
            weights_B=torch.full((len(uses),), 1.0 / step.effective_batch),
        )

    def _latents(self, use: Use, address: Address) -> Tensor:
        item = self.items[use.placement]
        key = item.latents
        if item.flipped_latents is not None and address.stream("flip").random() < 0.5:
            key = item.flipped_latents
        stored_CHW = torch.from_numpy(np.array(self.read_latents(key))).float()
        if self.holds_moments:
            mean_CHW, log_variance_CHW = stored_CHW.chunk(2)
            draw_CHW = torch.randn(mean_CHW.shape, generator=generator(address, "posterior"))
            stored_CHW = mean_CHW + torch.exp(0.5 * log_variance_CHW) * draw_CHW
        return stored_CHW * LATENT_SCALE
