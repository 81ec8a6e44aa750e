"""A Stable Diffusion in memory: its three networks, tokenizer, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.formats.clip_tokens import ClipTokenizer
from sdft.formats.zip_pickle import Scalar
from sdft.models.checkpoint import read
from sdft.models.configs import Config
from sdft.models.family import Family, settle_family
from sdft.models.open import open_model
from sdft.models.source import PARTS
from sdft.models.text import inner_model, state_for


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """What `load_bundle` returns. Networks are in evaluation mode and need no gradients yet."""

    family: Family
    prediction_type: str
    """`epsilon` or `v_prediction`."""
    networks: Mapping[str, Any]
    """The asked ones of `unet`, `vae` and `text_encoder`."""
    configs: Mapping[str, Config]
    """`config.json` of each asked network as a diffusers folder has it, and the scheduler's where
    the model came from such a folder."""
    tokenizer: ClipTokenizer
    form: str
    """`safetensors`, `ckpt`, `diffusers` or `diffusers_safetensors`."""
    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    """Numbers beside the weights of a .ckpt, such as `global_step`."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the original layout has and the networks have not, under original names."""
    notices: tuple[str, ...] = ()
    """What a person should know about how the file was read."""

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.networks["unet"]

    @property
    def vae(self) -> AutoencoderKL:
        return self.networks["vae"]

    @property
    def text_encoder(self) -> CLIPTextModel:
        return self.networks["text_encoder"]


def load_bundle(
    path: Path,
    *,
    vae_path: Path | None = None,
    v2: bool | None = None,
    v_parameterization: bool | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    parts: Sequence[str] = PARTS,
) -> ModelBundle:
    """Load a model from any file form; no hub is asked.

    `v2` and `v_parameterization` are what the person says of the model; None leaves it to the
    file. Only the networks in `parts` are read and have to be there.
    Raises: UserError where flags and file contradict or do not suffice; DataError where the file
        is no usable model.
    """
    source = open_model(path, vae_path=vae_path)
    source.check(tuple(parts))
    family, prediction_type, notices = settle_family(
        source.generation,
        source.stated_prediction,
        v2=v2,
        v_parameterization=v_parameterization,
        where=str(path),
    )
    configs = {part: source.config(part, family) for part in parts}
    networks = {}
    for part in parts:
        expected = source.sizes(part).tensors()
        weights = {
            name: read(tensor, dtype).to(device)
            for name, tensor in source.weights[part].items()
            if name in expected
        }
        networks[part] = build_network(part, configs[part], weights)
    if "scheduler" in source.given_configs:
        configs["scheduler"] = source.given_configs["scheduler"]
    surplus = tuple(
        f"{len(names)} tensors of the {part} are not used: {', '.join(names[:3])}"
        for part, names in source.unexpected().items()
    )
    return ModelBundle(
        family=family,
        prediction_type=prediction_type,
        networks=networks,
        configs=configs,
        tokenizer=ClipTokenizer(family.tokenizer_padding),
        form=source.form,
        path=path,
        metadata=source.metadata,
        scalars=source.scalars,
        extras={name: read(tensor) for name, tensor in source.extras.items()},
        notices=notices + surplus,
    )


def build_network(part: str, config: Config, weights: Mapping[str, Tensor]) -> Any:
    """Return a network that takes over `weights`, without copying and without random numbers."""
    network: Any
    with torch.device("meta"):
        if part == "unet":
            network = UNet2DConditionModel.from_config(config)
        elif part == "vae":
            network = AutoencoderKL.from_config(config)
        else:
            network = CLIPTextModel(CLIPTextConfig(**config))
    if part == "text_encoder":
        weights = state_for(network, weights)
        _make_positions(network, next(iter(weights.values())).device)
    network.load_state_dict(weights, assign=True)
    left_empty = [name for name, tensor in network.named_parameters() if tensor.is_meta]
    left_empty += [name for name, tensor in network.named_buffers() if tensor.is_meta]
    assert not left_empty, left_empty
    return network.eval().requires_grad_(False)


def _make_positions(text_encoder: CLIPTextModel, device: torch.device) -> None:
    """Fill the table 0 .. 76, which belongs to no file and has no values on the meta device."""
    embeddings: Any = inner_model(text_encoder).embeddings
    num_positions = text_encoder.config.max_position_embeddings
    positions = torch.arange(num_positions, device=device).expand((1, -1))
    embeddings.register_buffer("position_ids", positions, persistent=False)
