"""DeepDanbooru's port to torch: one `.pt` with the weights and the tags.

In: the file. Out: a Labeler. The network is a ResNet of bottlenecks whose layers are numbered
through, `n_Conv_0` to `n_Conv_178`; its widths are read from the weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sdft.errors import DataError
from sdft.labelers.preprocess import edge_filled
from sdft.labelers.records import Prepared, Words
from sdft.labelers.selection import TagChoice, TagSelector
from sdft.labelers.torch_device import torch_device
from sdft.labelers.vocabulary import danbooru_table

SIDE_PX = 512

DEFAULT_THRESH = 0.5
"""Source: the port's example and the web UI."""

STAGES = ((3, 1), (8, 2), (20, 2), (20, 2), (3, 2), (3, 2))
"""Blocks and stride of each stage. Source: DeepDanbooru's resnet_custom_v3."""

SHORTCUT_LAST_STAGE = 3
"""In this stage the shortcut is numbered behind the block's own layers; elsewhere before them."""

NUM_CONVOLUTIONS = 1 + sum(3 * blocks + 1 for blocks, _ in STAGES) + 1


class TorchDanbooru:
    """A Labeler."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        tags: Sequence[str],
        path: str,
        choice: TagChoice,
        device: str,
    ) -> None:
        self._device = torch.device(device)
        dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._weights = {
            name: weight.to(self._device, dtype=dtype) for name, weight in weights.items()
        }
        self._dtype = dtype
        self._selector = TagSelector(
            danbooru_table(tags, (), path), choice, "danbooru", DEFAULT_THRESH
        )

    @property
    def title(self) -> str:
        return f"DeepDanbooru tagger (torch) on {self._device}"

    @property
    def fixed_batch(self) -> int | None:
        return None

    @property
    def first_batch(self) -> int:
        return 16 if self._device.type == "cuda" else 4

    def prepare(self, rgb_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return edge_filled(rgb_HWC, SIDE_PX, SIDE_PX, by="lanczos")

    @torch.inference_mode()
    def probabilities(self, batch: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        """Shapes: [B, T] out."""
        levels_BHWC = torch.from_numpy(np.stack([image.pixels for image in batch]))
        pixels_BHWC = levels_BHWC.to(self._device, dtype=self._dtype) / 255
        return forward(self._weights, pixels_BHWC).float().cpu().numpy()

    def label(self, batch: Sequence[Prepared]) -> list[Words]:
        return [tuple(self._selector.tags(row_T)) for row_T in self.probabilities(batch)]


def open_torch_danbooru(path: Path, choice: TagChoice, device: str) -> tuple[TorchDanbooru, str]:
    """Read the port's file. Nothing in it is executed.

    Raises: DataError for a file that is something else or lacks layers.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(
            what=f"not a torch file that can be read safely: {str(error).splitlines()[0]}",
            where=str(path),
            fix="download it again from a source that you trust",
        ) from error
    tags = content.get("tags") if isinstance(content, dict) else None
    if not isinstance(tags, list | tuple) or not tags:
        raise DataError(what="there is no list of tags in the file", where=str(path))
    weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    missing = [name for name in weight_names() if name not in weights]
    if missing:
        raise DataError(
            what=f"{len(missing)} layers are missing, such as {missing[0]}",
            where=str(path),
            fix="this is not the torch port of DeepDanbooru, or a damaged one",
        )
    num_outputs = weights[f"n_Conv_{NUM_CONVOLUTIONS - 1}.weight"].shape[0]
    if num_outputs != len(tags):
        raise DataError(what=f"{len(tags)} tags for {num_outputs} outputs", where=str(path))
    device, note = torch_device(device)
    return TorchDanbooru(weights, [str(tag) for tag in tags], str(path), choice, device), note


def weight_names() -> list[str]:
    """Return the names of all weights; only the last convolution has no bias."""
    last = NUM_CONVOLUTIONS - 1
    names = [f"n_Conv_{number}.{part}" for number in range(last) for part in ("weight", "bias")]
    return [*names, f"n_Conv_{last}.weight"]


def forward(weights: Mapping[str, Tensor], pixels_BHWC: Tensor) -> Tensor:
    """Return the probabilities.

    Shapes: [B, 512, 512, 3] with RGB 0..1 in, [B, T] out.
    """

    def convolve(number: int, x_BCHW: Tensor, stride: int = 1) -> Tensor:
        name = f"n_Conv_{number}"
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        return functional.conv2d(x_BCHW, weight, bias, stride=stride)

    x_BCHW = convolve(0, functional.pad(pixels_BHWC.permute(0, 3, 1, 2), (2, 3, 2, 3)), stride=2)
    x_BCHW = functional.max_pool2d(
        functional.pad(x_BCHW.relu(), (0, 1, 0, 1), value=float("-inf")), 3, 2
    )
    number = 1
    for stage, (num_blocks, stage_stride) in enumerate(STAGES):
        for block in range(num_blocks):
            stride = stage_stride if block == 0 else 1
            first, shortcut = number, None
            if block == 0:
                last_comes_shortcut = stage == SHORTCUT_LAST_STAGE
                shortcut = number + 3 if last_comes_shortcut else number
                first = number if last_comes_shortcut else number + 1
            inner_BCHW = convolve(first, x_BCHW).relu()
            # TensorFlow's "same" padding: with a stride of 2 the odd pixel goes right and below.
            padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
            inner_BCHW = convolve(first + 1, functional.pad(inner_BCHW, padding), stride).relu()
            inner_BCHW = convolve(first + 2, inner_BCHW)
            past_BCHW = x_BCHW if shortcut is None else convolve(shortcut, x_BCHW, stride)
            x_BCHW = (inner_BCHW + past_BCHW).relu()
            number += 3 + (shortcut is not None)
    assert number == NUM_CONVOLUTIONS - 1
    return convolve(number, x_BCHW).mean(dim=(2, 3)).sigmoid()
