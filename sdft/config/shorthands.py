"""Short and older ways to say a setting, folded into the setting itself.

In: the typed training values that were given, and where. The values are changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdft.errors import Problem

_OPTIMIZERS = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}


SHORTHANDS = (*_OPTIMIZERS, "use_safetensors", "diffusers_xformers")
"""Settings that are always off in a loaded config."""


def fold_shorthands(
    values: dict[str, Any], places: Mapping[str, str], problem: Callable[[Problem], None]
) -> dict[str, str]:
    """Replace shorthands by what they stand for; return the new places of what they set."""
    moved: dict[str, str] = {}
    for name, optimizer in _OPTIMIZERS.items():
        if values.pop(name, False):
            asked = values.setdefault("optimizer_type", optimizer)
            if asked != optimizer:
                problem(
                    Problem(
                        f"{name} means optimizer_type {optimizer}, but {asked} is asked for too",
                        places[name],
                        "leave one of them out",
                    )
                )
            moved["optimizer_type"] = places[name]
    if values.pop("use_safetensors", False) and values.get("save_model_as") is None:
        values["save_model_as"] = "safetensors"
        moved["save_model_as"] = places["use_safetensors"]
    if values.pop("diffusers_xformers", False):
        values["xformers"] = True
        moved["xformers"] = places["diffusers_xformers"]
    if values.get("cache_latents_to_disk") and "cache_latents" not in values:
        values["cache_latents"] = True
        moved["cache_latents"] = places["cache_latents_to_disk"]
    return moved
