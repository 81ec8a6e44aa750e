"""What a file of tensors is when it is not a Stable Diffusion 1.x or 2.x. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from sdft.errors import DataError, Problem
from sdft.models.sizes import Shapes

UNET_PREFIX = "model.diffusion_model."

_USE_SD = "use a Stable Diffusion 1.x or 2.x model"
_LORA_MARKS = (".lora_up.", ".lora_down.", ".lora_A.", ".lora_B.", ".hada_w1_a", ".lokr_w1")


def _is_lora(shapes: Shapes) -> bool:
    return any(mark in name for name in shapes for mark in _LORA_MARKS)


def _starts(*prefixes: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(name.startswith(prefixes) for name in shapes)


_KINDS: tuple[tuple[Callable[[Shapes], bool], str, str], ...] = (
    (
        _is_lora,
        "a LoRA: differences to a model, not a model",
        "give the model that it belongs to",
    ),
    (
        _starts("conditioner.embedders.1.", f"{UNET_PREFIX}label_emb.", "add_embedding."),
        "an SDXL or unCLIP model, which has other networks",
        _USE_SD,
    ),
    (
        _starts(f"{UNET_PREFIX}joint_blocks.", f"{UNET_PREFIX}double_blocks.", "double_blocks."),
        "a model of a later kind (SD 3, FLUX), which has other networks",
        _USE_SD,
    ),
    (_starts("control_model.", "controlnet_cond_embedding."), "a ControlNet", _USE_SD),
    (
        _starts("emb_params", "string_to_param", "clip_l", "clip_g"),
        "an embedding (textual inversion), not a model",
        _USE_SD,
    ),
)

_CHANNELS = {
    8: "an image-editing model (8 input channels: latents and those of a picture to edit)",
    5: "a depth model (5 input channels: latents and a depth map)",
    7: "an upscaler (7 input channels: latents and a small picture)",
    9: "an inpainting model (9 input channels: latents, a mask, and those of the masked picture)",
}


def kind_of(shapes: Shapes) -> str:
    """Return in words what the tensors are, or an empty text where nothing tells."""
    known = next((what for is_kind, what, _ in _KINDS if is_kind(shapes)), "")
    if known:
        return known.partition(":")[0].removesuffix(", not a model")
    if any(name.startswith((UNET_PREFIX, "conv_in.", "down_blocks.")) for name in shapes):
        return "a Stable Diffusion model"
    return ""


def refuse_other_kinds(shapes: Shapes, where: str) -> None:
    """Raises: DataError where the tensors are those of another kind of file."""
    for is_kind, what, fix in _KINDS:
        if is_kind(shapes):
            raise DataError(what=f"this is {what}", where=where, fix=fix)
    has_vae = _starts("encoder.", "first_stage_model.")(shapes)
    has_unet = any(name.startswith((UNET_PREFIX, "conv_in.", "down_blocks.")) for name in shapes)
    if has_vae and not has_unet:
        fix = "give it by --vae"
        raise DataError(what="this is a VAE alone", where=where, fix=fix, key="vae_alone")
    if not has_unet:
        raise DataError(
            what="this is no Stable Diffusion model",
            where=where,
            fix=_USE_SD,
            key="not_stable_diffusion",
        )


def wrong_channels(in_channels: int, where: str) -> Problem | None:
    """Say why a U-Net with other than 4 input channels cannot be trained."""
    if in_channels == 4:
        return None
    kind = _CHANNELS.get(in_channels, f"a model with {in_channels} input channels")
    return Problem(
        what=f"this is {kind}; training needs what the other channels hold, which a folder of "
        "images with captions does not have",
        where=where,
        fix="use a text-to-image model",
    )
