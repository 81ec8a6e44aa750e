"""Makes batches: latents, noise, timesteps, token ids and masks of the items of a micro-batch.

In: the plan's items and where their latents come from. Out: Batch records on the CPU, then on the
device.
B batch, C latent channels, H and W latent height and width, K chunks of 77 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.dataset.augment import PictureJob, is_mirrored
from sdft.dataset.captions import words_of
from sdft.dataset.records import WordRules
from sdft.formats.caption_reader import CaptionReader
from sdft.streams import Address
from sdft.train.contexts import Contexts
from sdft.train.latents import Found, LatentSource, Remark
from sdft.train.noise import NoiseRecipe, draw_noise
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
    latents: str | None
    """The key of its latents in the cache; none where they are made from its pixels."""
    flipped_latents: str | None
    """The key of the mirrored image's latents; none where there are none."""
    picture: PictureJob | None = None
    """How its pixels are made on each use; none where its latents are in the cache."""
    weight: float = 1.0
    """What its loss is multiplied with."""
    mask: str | None = None
    """The key of its mask in the cache, not mirrored; none where all of the image counts."""

    @property
    def flips(self) -> bool:
        """Whether half of its uses are mirrored."""
        if self.picture is not None:
            return self.picture.rules.flip_aug
        return self.flipped_latents is not None


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
    contexts_BSD: Tensor | None = None
    """What the text encoder gives for the words, where it is kept for all of them."""
    remarks: tuple[Remark, ...] = ()
    """What is to be said of its images, by whoever trains on it."""
    is_filling: bool = False
    """Whether it stands for no item of its step, and only keeps this process in step."""
    sent: SentBatch | None = None
    """The same on a device, where it was sent ahead."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; copies to a GPU do not wait."""
        if device.type == "cpu":
            return self
        if self.sent is not None:
            return self.sent.arrived()
        moved: dict[int, Tensor] = {}

        def move(tensor: object) -> object:
            if not isinstance(tensor, Tensor):
                return tensor
            # The same tensor under two names goes once.
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.pin_memory().to(device, non_blocking=True)
            return moved[id(tensor)]

        return Batch(**{field.name: move(getattr(self, field.name)) for field in fields(self)})  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.latents_BCHW.shape[0]


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch that was copied to a GPU on a stream of its own."""

    batch: Batch
    done: Any
    """torch.cuda.Event after the copies."""

    def arrived(self) -> Batch:
        """Return the batch; what is computed from now on waits for the copies, this thread does
        not."""
        current = torch.cuda.current_stream()
        current.wait_event(self.done)
        for field in fields(self.batch):
            one = getattr(self.batch, field.name)
            if isinstance(one, Tensor):
                one.record_stream(current)
        return self.batch


class Sender:
    """Copies batches to the device while it computes; on a CPU there is nothing to copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch as it is, with its copy on the way."""
        if self._device.type != "cuda":
            return batch
        with torch.cuda.device(self._device):
            if self._stream is None:
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.stream(self._stream):
                copy = batch.to(self._device)
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record(self._stream)
        return replace(batch, sent=SentBatch(copy, done))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMaker:
    """Makes the batch of some uses; the same uses always give the same batch."""

    items: Sequence[TrainingItem]
    latents: LatentSource
    reader: CaptionReader
    read_mask: Callable[[str], np.ndarray] | None
    """Returns [H, W] masks; none where no item has one."""
    seed: int
    noise: NoiseRecipe
    min_timestep: int
    max_timestep: int
    max_train_steps: int
    contexts: Contexts | None = None
    """What the text encoder gives, where it is kept."""

    def address(self, step: Step, use: Use) -> Address:
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

    def words(self, step: Step, use: Use, *, step_number: int) -> str:
        """Return what the text encoder will read for one use of an item."""
        item = self.items[use.placement]
        address = self.address(step, use)
        return words_of(item.caption, item.words, address, step_number, self.max_train_steps)

    def make(self, step: Step, uses: Sequence[Use], *, step_number: int) -> Batch:
        """Return the batch of a part of a step.

        Units: `step_number` is the number of updates done before this one.
        """
        return self.begin(step, uses, step_number=step_number)()

    def begin(self, step: Step, uses: Sequence[Use], *, step_number: int) -> Callable[[], Batch]:
        """Ask for what other processes make of a batch; the result waits for it and does the rest.

        Without uses it is one of the step's own that counts 0: a process that has none left must
        still take part in the exchange of gradients.

        Raises (the result): what a LatentSource raises.
        """
        is_filling = not uses
        share = 0.0 if is_filling else 1.0 / step.effective_batch
        uses = uses or step.uses[:1]
        items = [self.items[use.placement] for use in uses]
        addresses = [self.address(step, use) for use in uses]
        found = self.latents.begin(items, addresses)

        def result() -> Batch:
            words = [self.words(step, use, step_number=step_number) for use in uses]
            batch = self._batch(share, items, addresses, words, found())
            # What its image is like is said by the process that trains on it.
            return replace(batch, is_filling=True, remarks=()) if is_filling else batch

        return result

    def _batch(
        self,
        share: float,
        items: Sequence[TrainingItem],
        addresses: Sequence[Address],
        words: Sequence[str],
        found: Sequence[Found],
    ) -> Batch:
        latents_BCHW = torch.stack([one.latents_CHW for one in found])
        noises = [
            draw_noise(address, latents_CHW, self.noise)
            for address, latents_CHW in zip(addresses, latents_BCHW, strict=True)
        ]
        noise_BCHW = torch.stack([noise_CHW for noise_CHW, _ in noises])
        timesteps = [
            draw_timestep(address, min_timestep=self.min_timestep, max_timestep=self.max_timestep)
            for address in addresses
        ]
        captions = [self.reader.read(text) for text in words]
        weights = [
            item.weight * share if one.is_usable else 0.0
            for item, one in zip(items, found, strict=True)
        ]
        return Batch(
            latents_BCHW=latents_BCHW,
            noise_BCHW=noise_BCHW,
            input_noise_BCHW=(
                torch.stack([input_noise_CHW for _, input_noise_CHW in noises])
                if self.noise.ip_noise_gamma
                else noise_BCHW
            ),
            timesteps_B=torch.tensor(timesteps),
            ids_BKS=torch.tensor([caption.ids_KS for caption in captions]),
            weights_B=torch.tensor(weights),
            word_weights_BKS=(
                torch.tensor([caption.weights_KS for caption in captions])
                if self.reader.weighted
                else None
            ),
            masks_BHW=self._masks(items, addresses, like_BCHW=latents_BCHW),
            contexts_BSD=self.contexts.of(words) if self.contexts is not None else None,
            remarks=tuple(one.remark for one in found if one.remark is not None),
        )

    def _masks(
        self, items: Sequence[TrainingItem], addresses: Sequence[Address], *, like_BCHW: Tensor
    ) -> Tensor | None:
        """Return how much each latent cell counts, [B, H, W]; none where all count fully."""
        if self.read_mask is None or all(item.mask is None for item in items):
            return None
        masks = []
        for item, address in zip(items, addresses, strict=True):
            if item.mask is None:
                masks.append(torch.ones(like_BCHW.shape[2:]))
                continue
            mask_HW = torch.from_numpy(np.array(self.read_mask(item.mask))).float()
            masks.append(mask_HW.flip(-1) if item.flips and is_mirrored(address) else mask_HW)
        return torch.stack(masks)
