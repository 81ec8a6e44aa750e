"""A model on disk, in any file form, seen as three networks with one set of names.

In: a single file in the original layout, or a diffusers folder. Out: lazy tensors under the names
of diffusers, the sizes of each network, and whatever else the file holds. No weights are read,
and neither torch nor diffusers is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdft.errors import DataError, Problem
from sdft.formats.lazy import LazyTensor
from sdft.formats.zip_pickle import Scalar
from sdft.models.configs import Config, text_config, unet_config, vae_config
from sdft.models.family import Family
from sdft.models.refuse import wrong_channels
from sdft.models.sizes import NORM_GROUPS, Shapes, TextSizes, UNetSizes, VaeSizes

PARTS = ("unet", "vae", "text_encoder")
SIZES: Mapping[str, type[UNetSizes] | type[VaeSizes] | type[TextSizes]] = {
    "unet": UNetSizes,
    "vae": VaeSizes,
    "text_encoder": TextSizes,
}
TITLES = {"unet": "U-Net", "vae": "VAE", "text_encoder": "text encoder"}

DIFFUSERS = "diffusers"
DIFFUSERS_SAFETENSORS = "diffusers_safetensors"

_KEPT_SETTINGS = {
    "unet": ("attention_head_dim", "num_attention_heads", "upcast_attention", "sample_size"),
    "vae": ("sample_size", "force_upcast"),
    "text_encoder": ("hidden_act", "num_attention_heads", "projection_dim", "eos_token_id"),
}
"""What a diffusers folder's own `config.json` decides, because no shape does."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    path: Path
    form: str
    """`safetensors`, `ckpt`, `diffusers` (pickled weights) or `diffusers_safetensors`."""
    generation: str
    """`sd1` or `sd2`."""
    stated_prediction: str | None
    """`epsilon` or `v_prediction` where the file says so."""
    weights: Mapping[str, Mapping[str, LazyTensor]]
    """The tensors of each network that is there, by diffusers names."""
    given_configs: Mapping[str, Config] = field(default_factory=dict)
    """`config.json` of the networks that came from a folder, and its scheduler's."""
    extras: Mapping[str, LazyTensor] = field(default_factory=dict)
    """Tensors of the original layout that no network has, under original names."""
    ema: Mapping[str, LazyTensor] = field(default_factory=dict)
    """The U-Net's running averages, by diffusers names."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """What a pickle holds beside its weights and scalars, such as `optimizer_states`."""

    def shapes(self, part: str) -> Shapes:
        return {name: tensor.shape for name, tensor in self.weights[part].items()}

    def sizes(self, part: str) -> Any:
        """Return the UNetSizes, VaeSizes or TextSizes of a network that is there."""
        try:
            return SIZES[part].of(self.shapes(part))
        except DataError as error:
            problem = replace(error.problems[0], where=f"{self.path}, {TITLES[part]}")
            raise DataError(problems=[problem]) from error

    def with_vae(self, other: VaeSource) -> ModelSource:
        """Return the same model with another VAE."""
        configs = {part: config for part, config in self.given_configs.items() if part != "vae"}
        return replace(
            self,
            weights={**self.weights, "vae": other.weights},
            given_configs=configs | ({"vae": other.config} if other.config else {}),
        )

    def with_ema(self) -> ModelSource:
        """Return the same model with the running averages as its U-Net.

        Raises: DataError where there are none.
        """
        if not self.ema:
            raise DataError(what="this model has no EMA weights", where=str(self.path))
        return replace(self, weights={**self.weights, "unet": self.ema}, ema={})

    def config(self, part: str, family: Family) -> Config:
        """Return a network's `config.json`: its sizes, and what only its folder knew."""
        config = config_from_sizes(part, self.sizes(part), family)
        given = self.given_configs.get(part, {})
        kept = {key: given[key] for key in _KEPT_SETTINGS[part] if given.get(key) is not None}
        return config | kept

    def problems(self, parts: tuple[str, ...] = PARTS) -> list[Problem]:
        """Return what is missing or of the wrong shape; an empty list for a whole model."""
        found: list[Problem] = []
        for part in parts:
            if part not in self.weights:
                found.append(_missing_part(part, self.path))
                continue
            try:
                sizes = self.sizes(part)
                expected = sizes.tensors()
            except DataError as error:
                found.extend(error.problems)
                continue
            where = f"{self.path}, {TITLES[part]}"
            found.extend(_differences(self.shapes(part), expected, where))
            found.extend(_unusable_widths(sizes, where))
            found.extend(_unusable_settings(self.given_configs.get(part, {}), sizes, where))
        conv_in = self.weights.get("unet", {}).get("conv_in.weight")
        if "unet" in parts and conv_in is not None and len(conv_in.shape) == 4:
            problem = wrong_channels(conv_in.shape[1], str(self.path))
            # One reason says more than the wrong shapes that follow from it.
            return [problem] if problem else found
        return found

    def check(self, parts: tuple[str, ...] = PARTS) -> None:
        """Raises: DataError that names all that is missing or wrong."""
        found = self.problems(parts)
        if found:
            raise DataError(problems=found)

    def unexpected(self) -> dict[str, tuple[str, ...]]:
        """Return the tensors of each network that such a network does not have."""
        surplus = {
            part: tuple(sorted(set(self.shapes(part)) - set(self.sizes(part).tensors())))
            for part in self.weights
        }
        return {part: names for part, names in surplus.items() if names}


@dataclass(frozen=True, kw_only=True)
class VaeSource:
    path: Path
    weights: Mapping[str, LazyTensor]
    config: Config | None = None


def config_from_sizes(part: str, sizes: Any, family: Family) -> Config:
    """Return the config.json of a network (`unet`, `vae` or `text_encoder`) of these sizes."""
    if part == "unet":
        return unet_config(
            widths=sizes.widths,
            layers_per_block=sizes.layers_per_block,
            has_attention=sizes.has_attention,
            context_width=sizes.context_width,
            heads=[family.heads_of(width) for width in sizes.widths],
            linear_projection=sizes.linear_projection,
            upcast_attention=family.upcast_attention,
            sample_size=family.resolution_px // 8,
            in_channels=sizes.in_channels,
            out_channels=sizes.out_channels,
        )
    if part == "vae":
        return vae_config(
            widths=sizes.widths,
            layers_per_block=sizes.layers_per_block,
            latent_channels=sizes.latent_channels,
        )
    return text_config(
        width=sizes.width,
        mlp_width=sizes.mlp_width,
        num_layers=sizes.num_layers,
        # 64 channels to a head in OpenAI's CLIP and in OpenCLIP.
        heads=max(1, sizes.width // 64),
        vocabulary_size=sizes.vocabulary_size,
        positions=sizes.positions,
        activation=family.text_activation,
    )


def _missing_part(part: str, path: Path) -> Problem:
    fix = "give one by --vae" if part == "vae" else "use a whole model"
    return Problem(what=f"this model has no {TITLES[part]}", where=str(path), fix=fix)


def _differences(shapes: Shapes, expected: Shapes, where: str) -> list[Problem]:
    missing = sorted(set(expected) - set(shapes))
    wrong = sorted(name for name in shapes if shapes[name] != expected.get(name, shapes[name]))
    found = []
    if missing:
        what = f"{len(missing)} of {len(expected)} tensors are missing: {_some(missing)}"
        found.append(Problem(what=what, where=where, fix="download or convert it again"))
    for name in wrong[:8]:
        what = f'"{name}" has the shape {list(shapes[name])}, not {list(expected[name])}'
        found.append(Problem(what=what, where=where))
    if len(wrong) > 8:
        found.append(Problem(what=f"{len(wrong) - 8} more have a wrong shape", where=where))
    return found


def _unusable_widths(sizes: Any, where: str) -> list[Problem]:
    widths = () if isinstance(sizes, TextSizes) else sizes.widths
    wrong = [width for width in widths if not width or width % NORM_GROUPS]
    what = f"{wrong} channels cannot be normalised in {NORM_GROUPS} groups"
    return [Problem(what=what, where=where)] if wrong else []


def _unusable_settings(given: Config, sizes: Any, where: str) -> list[Problem]:
    """Check the few settings that a folder's own `config.json` decides."""
    widths = [sizes.width] if isinstance(sizes, TextSizes) else list(sizes.widths)
    found = []
    for key in ("attention_head_dim", "num_attention_heads"):
        value = given.get(key)
        if value is None or isinstance(sizes, VaeSizes):
            continue
        heads = value if isinstance(value, list) else [value] * len(widths)
        fit = len(heads) == len(widths) and all(
            type(count) is int and count > 0 and width % count == 0
            for count, width in zip(heads, widths, strict=True)
        )
        if not fit:
            what = f"config.json has {key} = {value}, which does not fit {widths} channels"
            found.append(Problem(what=what, where=where))
    activation = given.get("hidden_act", "gelu")
    if activation not in ("gelu", "quick_gelu"):
        what = f"config.json has hidden_act = {activation}, which no Stable Diffusion has"
        found.append(Problem(what=what, where=where))
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
