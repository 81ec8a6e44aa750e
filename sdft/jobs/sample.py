"""`sdft sample`: pictures from a model.

In: a model file and prompts. Out: PNG files that say how they were made.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdft.config.choices import SAMPLERS, canonical
from sdft.config.prompts import MIN_SIDE_PX, SIDE_STEP_PX, Prompt, read_prompts
from sdft.errors import UnknownName, UserError, nearest
from sdft.events import Emit, SampleSaved
from sdft.jobs.sample_files import free_name, parameters_of, save_picture

MAX_SEED = 2**31
"""Drawn seeds are this short so that a person can type them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """The pictures, in the order of the prompts."""

    images: tuple[Path, ...]
    model: Path

    def as_json(self) -> dict[str, object]:
        return {"images": [str(path) for path in self.images], "model": str(self.model)}


def run_sample(
    model: Path,
    *,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
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
    hypernetworks: Sequence[tuple[Path, float]] = (),
    v2: bool | None = None,
    v_parameterization: bool | None = None,
    device: str = "auto",
    emit: Emit,
) -> SampleResult:
    """Draw `num_images` pictures a prompt; the first has `seed`, the next `seed` + 1, and so on.

    What a prompt of the file says of itself wins over the other parameters. `hypernetworks` are
    files and their strengths, in the order in which they are applied.

    Units: sides in pixels; None takes the size that the model was made for.
    Raises: SdftError of every kind.
    """
    _check(width, height, sampler)
    asked = [Prompt(prompt=text) for text in prompts]
    if prompts_file is not None:
        asked += read_prompts(prompts_file, Path.cwd())
    if not asked:
        raise UserError(what="there is no prompt", fix='add --prompt "a red circle"')
    first_seed = secrets.randbelow(MAX_SEED) if seed is None else seed
    # Heavy: brings torch, diffusers and transformers, some 10 s.
    from sdft.jobs.hypernetworks import use_hypernetworks
    from sdft.jobs.training.drawing import Drawer, request_of
    from sdft.jobs.training.machine import build_accelerator
    from sdft.models.bundle import load_bundle

    accelerator = build_accelerator(
        device=device, mixed_precision="no", deterministic=False, emit=emit
    )
    bundle = load_bundle(
        model, vae_path=vae, v2=v2, v_parameterization=v_parameterization, device=accelerator.device
    )
    use_hypernetworks(bundle, hypernetworks, emit=emit)
    strengths = tuple((path.stem, strength) for path, strength in hypernetworks)
    drawer = Drawer.of_bundle(
        bundle,
        clip_skip=clip_skip,
        max_token_length=max_token_length,
        device=accelerator.device,
    )
    images = []
    for number, prompt in enumerate(_repeated(asked, num_images)):
        filled = replace(
            prompt,
            negative_prompt=prompt.negative_prompt or negative_prompt,
            width=prompt.width or width,
            height=prompt.height or height,
            sample_steps=num_steps if prompt.sample_steps is None else prompt.sample_steps,
            scale=guidance_scale if prompt.scale is None else prompt.scale,
        )
        request = request_of(
            filled,
            resolution_px=bundle.family.resolution_px,
            sampler=canonical(sampler, SAMPLERS),
            seed=first_seed + number,
        )
        path = free_name(output_dir, f"{model.stem}_{number:02d}_{request.seed}")
        save_picture(path, drawer.draw(request), parameters_of(request, hypernetworks=strengths))
        emit(SampleSaved(step=0, path=str(path), prompt=request.prompt, seed=request.seed))
        images.append(path)
    return SampleResult(images=tuple(images), model=model)


def _repeated(prompts: Sequence[Prompt], num_images: int) -> list[Prompt]:
    """Return each prompt so many times; one with a seed of its own counts on from it."""
    return [
        prompt if prompt.seed is None else replace(prompt, seed=prompt.seed + number)
        for prompt in prompts
        for number in range(num_images)
    ]


def _check(width: int | None, height: int | None, sampler: str) -> None:
    if canonical(sampler, SAMPLERS) not in SAMPLERS:
        raise UnknownName(
            what=f'no sampler "{sampler}"',
            where="--sampler",
            fix=nearest(sampler, SAMPLERS) or f"known: {', '.join(SAMPLERS)}",
        )
    for name, side in (("width", width), ("height", height)):
        if side is not None and (side < MIN_SIDE_PX or side % SIDE_STEP_PX):
            floored = max(MIN_SIDE_PX, side // SIDE_STEP_PX * SIDE_STEP_PX)
            raise UserError(
                what=f"a side must be a multiple of {SIDE_STEP_PX} px and at least"
                f" {MIN_SIDE_PX}; {side} is not",
                where=f"--{name}",
                fix=f"use {floored} or {floored + SIDE_STEP_PX}",
            )
