"""The memory of a real network's pass, seen by torch's fake tensors: no bytes are allocated."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdft.models.checkpointing import checkpoint_blocks
from sdft.models.family import FAMILIES, Family
from sdft.models.sizes import UNetSizes, VaeSizes
from sdft.models.source import config_from_sizes


class Held(TorchDispatchMode):
    """Sums up the storages that are alive, but for those it was told of."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._sizes = {one.untyped_storage()._cdata: 0 for one in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self._see(one.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._lose, key)

    def _lose(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def fake_peak(
    family: str,
    sizes: UNetSizes,
    *,
    batch_size: int,
    side_px: int,
    half: bool,
    weights: torch.dtype,
    checkpoints: tuple[str, ...] | None,
    channels_last: bool = False,
) -> int:
    """Return the peak of a forward and a backward pass on a CPU, weights left out; in bytes.

    `checkpoints` names the blocks that are computed twice: none of them, or with () all.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kind: Family = FAMILIES[family]
    with FakeTensorMode():
        unet = UNet2DConditionModel.from_config(config_from_sizes("unet", sizes, kind)).train()
        for module in unet.modules():
            for name, weight in list(module._parameters.items()):
                if weight is None:
                    continue
                values = torch.empty(weight.shape, dtype=weights)
                if channels_last and values.dim() == 4:
                    values = values.to(memory_format=torch.channels_last)
                module._parameters[name] = torch.nn.Parameter(values)
        if checkpoints is not None:
            checkpoint_blocks(unet, checkpoints)
        with Held(unet.parameters()) as held:
            cells = side_px // 8
            noisy_BCHW = torch.empty(batch_size, 4, cells, cells, dtype=weights)
            contexts_BSD = torch.empty(batch_size, 77, sizes.context_width)
            timesteps_B = torch.zeros(batch_size, dtype=torch.long)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                predicted = unet(noisy_BCHW, timesteps_B, contexts_BSD, return_dict=False)[0]
            predicted.float().sum().backward()
    return held.peak


def fake_decoding_peak(sizes: VaeSizes, *, side_px: int) -> int:
    """Return the peak of decoding one picture on a CPU in float32, weights left out; in bytes."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with FakeTensorMode(), torch.no_grad():
        vae = AutoencoderKL.from_config(config_from_sizes("vae", sizes, FAMILIES["sd1"])).eval()
        with Held(vae.parameters()) as held:
            cells = side_px // 8
            vae.decode(torch.empty(1, 4, cells, cells))
    return held.peak
