"""Makes batches: latents, noise, timesteps, token ids and masks of the items of a micro-batch.

In: the plan's items and their cached latents. Out: Batch records on the CPU, then on the device.
B batch, C latent channels, H and W latent height and width, K chunks of 77 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from sdft.dataset.captions import words_of
from sdft.dataset.records import WordRules
from sdft.formats.caption_reader import CaptionReader
from sdft.models.vae import LATENT_SCALE
from sdft.streams import Address
from sdft.train.noise import NoiseRecipe, draw_noise, generator
from sdft.train.sampler import Step, Use
from sdft.train.timesteps import draw_timestep


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
    mask: str | None = None
    """The key of its mask in the cache, not mirrored; none where all of the image counts."""


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
    word_weights_BKS: Tensor | None = None
    """Weights of the tokens, where captions have some."""
    masks_BHW: Tensor | None = None
    """How much each latent cell counts, 0 .. 1; none where all count fully."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; copies to a GPU do not wait."""
        if device.type == "cpu":
            return self
        moved: dict[int, Tensor] = {}

        def move(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            # The same tensor under two names goes once.
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.pin_memory().to(device, non_blocking=True)
            return moved[id(tensor)]

        return Batch(**{field.name: move(getattr(self, field.name)) for field in fields(self)})  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.latents_BCHW.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMaker:
    """Makes the batch of some uses; the same uses always give the same batch."""

    items: Sequence[TrainingItem]
    read_latents: Callable[[str], np.ndarray]
    """Returns [C, H, W] latents, or [2C, H, W] mean and log-variance."""
    holds_moments: bool
    reader: CaptionReader
    read_mask: Callable[[str], np.ndarray] | None
    """Returns [H, W] masks; none where no item has one."""
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
            epoch=use.epoch,
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
        latents, noises, input_noises, timesteps, captions = [], [], [], [], []
        masks = []
        has_masks = any(self.items[use.placement].mask is not None for use in uses)
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
            captions.append(self.reader.read(words))
            if has_masks:
                masks.append(self._mask(use, address, like_CHW=latents_CHW))
        noise_BCHW = torch.stack(noises)
        return Batch(
            latents_BCHW=torch.stack(latents),
            noise_BCHW=noise_BCHW,
            input_noise_BCHW=torch.stack(input_noises) if self.noise.ip_noise_gamma else noise_BCHW,
            timesteps_B=torch.tensor(timesteps),
            ids_BKS=torch.tensor([caption.ids_KS for caption in captions]),
            weights_B=torch.full((len(uses),), 1.0 / step.effective_batch),
            word_weights_BKS=(
                torch.tensor([caption.weights_KS for caption in captions])
                if self.reader.weighted
                else None
            ),
            masks_BHW=torch.stack(masks) if has_masks else None,
        )

    def _mask(self, use: Use, address: Address, *, like_CHW: Tensor) -> Tensor:
        """Return how much each latent cell counts; shape [H, W]."""
        key = self.items[use.placement].mask
        if key is None or self.read_mask is None:
            return torch.ones(like_CHW.shape[1:])
        mask_HW = torch.from_numpy(np.array(self.read_mask(key))).float()
        return mask_HW.flip(-1) if self._is_flipped(use, address) else mask_HW

    def _is_flipped(self, use: Use, address: Address) -> bool:
        if self.items[use.placement].flipped_latents is None:
            return False
        return address.stream("flip").random() < 0.5

    def _latents(self, use: Use, address: Address) -> Tensor:
        item = self.items[use.placement]
        key = item.latents
        if item.flipped_latents is not None and self._is_flipped(use, address):
            key = item.flipped_latents
        stored_CHW = torch.from_numpy(np.array(self.read_latents(key))).float()
        if self.holds_moments:
            mean_CHW, log_variance_CHW = stored_CHW.chunk(2)
            draw_CHW = torch.randn(mean_CHW.shape, generator=generator(address, "posterior"))
            stored_CHW = mean_CHW + torch.exp(0.5 * log_variance_CHW) * draw_CHW
        return stored_CHW * LATENT_SCALE
