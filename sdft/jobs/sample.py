"""`sdft sample`: pictures from a model.

In: a model file and requests. Out: PNG files that say how they were made.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdft.errors import UserError
from sdft.events import Emit, SampleSaved
from sdft.files import whole_file

if TYPE_CHECKING:
    import numpy as np

    from sdft.train.preview import SampleRequest

MIN_SIDE_PX = 64
MAX_SEED = 2**31
SIDE_STEP_PX = 8
"""The VAE turns 8 x 8 pixels into one latent cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """The pictures, in the order of the requests."""

    images: tuple[Path, ...]
    model: Path

    def as_json(self) -> dict[str, object]:
        return {"images": [str(path) for path in self.images], "model": str(self.model)}


def run_sample(
    model: Path,
    *,
    prompts: Sequence[str],
    output_dir: Path,
    negative_prompt: str = "",
    width: int | None = None,
    height: int | None = None,
    num_steps: int = 30,
    guidance_scale: float = 7.5,
    sampler: str = "ddim",
    seed: int | None = None,
    num_images: int = 1,
    clip_skip: int | None = None,
    max_token_length: int = 75,
    vae: Path | None = None,
    v2: bool | None = None,
    v_parameterization: bool | None = None,
    device: str = "auto",
    emit: Emit,
) -> SampleResult:
    """Draw `num_images` pictures a prompt; the first has `seed`, the next `seed` + 1, and so on.

    Units: sides in pixels; None takes the size that the model was made for.
    Raises: SdftError of every kind.
    """
    _check(width, height, prompts)
    # Heavy: brings torch, diffusers and transformers, some 10 s.
    from sdft.jobs.training.drawing import Drawer
    from sdft.jobs.training.machine import build_accelerator
    from sdft.models.bundle import load_bundle
    from sdft.train.preview import SAMPLERS, SampleRequest

    sampler = SAMPLERS.canonical(sampler)
    accelerator = build_accelerator(
        device=device, mixed_precision="no", deterministic=False, emit=emit
    )
    bundle = load_bundle(
        model, vae_path=vae, v2=v2, v_parameterization=v_parameterization, device=accelerator.device
    )
    drawer = Drawer.of_bundle(
        bundle,
        clip_skip=clip_skip,
        max_token_length=max_token_length,
        device=accelerator.device,
    )
    first_seed = secrets.randbelow(MAX_SEED) if seed is None else seed
    images = []
    for number, prompt in enumerate(prompt for prompt in prompts for _ in range(num_images)):
        request = SampleRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=width or bundle.family.resolution_px,
            height=height or bundle.family.resolution_px,
            seed=first_seed + number,
            steps=num_steps,
            scale=guidance_scale,
            sampler=sampler,
        )
        path = free_name(output_dir, f"{model.stem}_{number:02d}_{request.seed}")
        save_picture(path, drawer.draw(request), request)
        emit(SampleSaved(step=0, path=str(path), prompt=prompt, seed=request.seed))
        images.append(path)
    return SampleResult(images=tuple(images), model=model)


def save_picture(path: Path, rgb_HWC: np.ndarray, request: SampleRequest) -> None:
    """Write a PNG with the request inside, in the form that web UIs read back."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(
        f"Steps: {request.steps}, Sampler: {request.sampler}, CFG scale: {request.scale:g}, "
        f"Seed: {request.seed}, Size: {request.width}x{request.height}"
    )
    inside = PngInfo()
    inside.add_itxt("parameters", "\n".join(lines))
    with whole_file(path) as part:
        Image.fromarray(rgb_HWC).save(part, format="PNG", pnginfo=inside)


def free_name(folder: Path, stem: str) -> Path:
    """Return a PNG path in `folder` that nothing has yet."""
    path = folder / f"{stem}.png"
    number = 1
    while path.exists():
        path = folder / f"{stem}-{number}.png"
        number += 1
    return path


def _check(width: int | None, height: int | None, prompts: Sequence[str]) -> None:
    if not prompts:
        raise UserError(what="there is no prompt", fix='add --prompt "a red circle"')
    for name, side in (("width", width), ("height", height)):
        if side is not None and (side < MIN_SIDE_PX or side % SIDE_STEP_PX):
            floored = max(MIN_SIDE_PX, side // SIDE_STEP_PX * SIDE_STEP_PX)
            raise UserError(
                what=f"a side must be a multiple of {SIDE_STEP_PX} px and at least"
                f" {MIN_SIDE_PX}; {side} is not",
                where=f"--{name}",
                fix=f"use {floored} or {floored + SIDE_STEP_PX}",
            )
