"""Compiles the U-Net with torch.compile, in place: names of weights stay as they are.

In: a U-Net and wishes. Out: the same U-Net, whose calls are compiled when they first come with a
new shape. Pictures and validation run uncompiled, since each would be a further shape.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch._dynamo.callback import callback_handler

from sdft.events import Emit, Notice, StageFinished, StageStarted

STAGE = "compile"
WHOLE = "unet"

SHAPES_OF_BLOCKS = 32
"""A U-Net calls its blocks with so many combinations of widths and sizes at most, all of which
count against one limit; SD has 18 for the residual and 6 for the attention ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileWishes:
    """How the U-Net is compiled."""

    scope: str = WHOLE
    """`unet` compiles it whole, `blocks` its residual and attention blocks: quicker to compile,
    slower to run."""
    backend: str = "inductor"
    mode: str = "default"
    num_shapes: int = 1
    """Of the latents of a run: one a bucket, and further ones for batches that are not full."""


def why_not_compiled(device: torch.device, backend: str) -> str:
    """Return what is missing for it and how to get it, or an empty text."""
    if backend != "inductor":
        return ""
    if device.type == "cuda":
        if find_spec("triton") is not None:
            return ""
        return (
            'triton is not installed; on Windows: python -m pip install "triton-windows>=3.6,<3.8";'
            " on Linux it comes with torch"
        )
    if any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return ""
    return "a CPU's kernels are made by a C++ compiler, and there is none"


def compile_unet(unet: UNet2DConditionModel, wishes: CompileWishes) -> None:
    """Let the U-Net be compiled at its first call with each shape."""
    limit = wishes.num_shapes * (1 if wishes.scope == WHOLE else SHAPES_OF_BLOCKS) + 8
    # diffusers asks for torch's version within its blocks; of that torch warns, once a place.
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    config = torch._dynamo.config
    # Past the limit torch would go on uncompiled without a word.
    config.recompile_limit = max(config.recompile_limit, limit)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 8 * limit)
    options: dict[str, Any] = {"backend": wishes.backend, "dynamic": False}
    if wishes.backend == "inductor" and wishes.mode != "default":
        options["mode"] = wishes.mode
    if wishes.scope == WHOLE:
        # Not `torch.compile(unet)`, which would put a prefix before the name of every weight.
        unet.forward = torch.compile(unet.forward, **options)
        return
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D | BasicTransformerBlock):
            module.compile(**options)


class CompileWatch:
    """Tells of each compilation: that it begins, how long it took, when the limit is reached.

    `after_step` is called between steps; a step may compile many parts, which are told together.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._began_s: float | None = None
        self._seconds = 0.0
        self._new = 0
        self._said_full = False
        self.num_compiled = 0
        """Of all steps."""
        callback_handler.register_start_callback(self._begins)
        callback_handler.register_end_callback(self._ends)

    def close(self) -> None:
        """Listen no more."""
        callback_handler.remove_start_callback(self._begins)
        callback_handler.remove_end_callback(self._ends)

    def after_step(self, step: int) -> None:
        """Say what was compiled since the last time."""
        if not self._new:
            return
        self.num_compiled += self._new
        self._emit(StageFinished(stage=STAGE, done=self.num_compiled, duration_s=self._seconds))
        self._new, self._seconds = 0, 0.0
        limit = torch._dynamo.config.recompile_limit
        if self.num_compiled >= limit and not self._said_full:
            self._said_full = True
            message = (
                f"step {step}: {self.num_compiled} compilations, and no place is compiled more than"
                f" {limit} times: further shapes may run uncompiled, and slower"
            )
            self._emit(Notice(severity="warning", topic="compile", message=message))

    def _begins(self, *arguments: object) -> None:
        self._began_s = time.monotonic()
        if not self._new:
            self._emit(StageStarted(stage=STAGE, total=0, unit="compilations"))

    def _ends(self, *arguments: object) -> None:
        if self._began_s is not None:
            self._seconds += time.monotonic() - self._began_s
        self._began_s = None
        self._new += 1


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run everything within as if nothing had been compiled."""
    with torch.compiler.set_stance("force_eager"):
        yield
