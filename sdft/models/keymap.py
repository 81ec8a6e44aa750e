"""Between the original layout of one file and the names of diffusers and transformers.

Each function takes the tensors of one network without its prefix, and gives them under the other
names. Nothing is read: tensors are lazy. What a function does not know, it returns as it was in
its second result, so that nothing is lost in silence.

`original` is CompVis' and Stability's layout. `diffusers` names are those of diffusers 0.17 and
later; for the text encoder those of transformers 4, with the `text_model.` level.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sdft.formats.lazy import LazyTensor, joined

Tensors = dict[str, LazyTensor]
Mapped = tuple[Tensors, Tensors]
"""Tensors under the other names, and those that have no place there under their own."""

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_RESNET_BACK = {new: old for old, new in _RESNET.items()}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_UNET_ENDS_BACK = {new: old for old, new in _UNET_ENDS.items()}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_MIDDLE_BACK = {new: old for old, new in _MIDDLE.items()}


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How the U-Net's blocks are counted in the original layout, one after the other."""

    layers_per_block: int

    @property
    def per_level(self) -> int:
        """The layers of a level and its change of resolution; going up, one layer more."""
        return self.layers_per_block + 1


def unet_to_diffusers(tensors: Mapping[str, LazyTensor]) -> Mapped:
    downsamplers = [name for name in tensors if re.match(r"input_blocks\.\d+\.0\.op\.weight", name)]
    inputs = _numbers(tensors, r"input_blocks\.(\d{1,4})\.")
    blocks = _Blocks(max(1, len(inputs) // (len(downsamplers) + 1) - 1))
    return _renamed(tensors, lambda name: _unet_name_to_diffusers(name, blocks))


def unet_to_original(tensors: Mapping[str, LazyTensor], *, linear_projection: bool) -> Mapped:
    """`linear_projection` gives the projections around attention two axes (SD 2.x) or four."""
    layers = {
        m[1] for name in tensors if (m := re.match(r"down_blocks\.0\.resnets\.(\d{1,4})\.", name))
    }
    blocks = _Blocks(max(1, len(layers)))
    with_attention = {
        m[1] for name in tensors if (m := re.match(r"up_blocks\.(\d{1,4})\.attentions\.", name))
    }
    mapped, rest = _renamed(
        tensors, lambda name: _unet_name_to_original(name, blocks, with_attention)
    )
    for name, tensor in mapped.items():
        if re.search(r"\.proj_(in|out)\.weight$", name):
            mapped[name] = tensor.reshaped(tensor.shape[:2] + (() if linear_projection else (1, 1)))
    return mapped, rest


def _unet_name_to_diffusers(name: str, blocks: _Blocks) -> str | None:
    for old, new in _UNET_ENDS.items():
        if name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    if match := re.fullmatch(r"middle_block\.([012])\.(.+)", name):
        return f"mid_block.{_MIDDLE[match[1]]}.{_inner(match[2], _RESNET)}"
    if match := re.fullmatch(r"input_blocks\.(\d{1,4})\.([01])\.(.+)", name):
        level, layer = divmod(int(match[1]) - 1, blocks.per_level)
        if match[3].startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{match[3].removeprefix('op.')}"
        kind = "resnets" if match[2] == "0" else "attentions"
        return f"down_blocks.{level}.{kind}.{layer}.{_inner(match[3], _RESNET)}"
    if match := re.fullmatch(r"output_blocks\.(\d{1,4})\.([012])\.(.+)", name):
        level, layer = divmod(int(match[1]), blocks.per_level)
        if match[3].startswith("conv."):
            return f"up_blocks.{level}.upsamplers.0.{match[3]}"
        kind = "resnets" if match[2] == "0" else "attentions"
        return f"up_blocks.{level}.{kind}.{layer}.{_inner(match[3], _RESNET)}"
    return None


def _unet_name_to_original(name: str, blocks: _Blocks, with_attention: set[str]) -> str | None:
    for new, old in _UNET_ENDS_BACK.items():
        if name.startswith(f"{new}."):
            return old + name.removeprefix(new)
    if match := re.fullmatch(r"mid_block\.(resnets\.0|attentions\.0|resnets\.1)\.(.+)", name):
        return f"middle_block.{_MIDDLE_BACK[match[1]]}.{_inner(match[2], _RESNET_BACK)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d{1,4})\.(\w+)\.(\d{1,4})\.(.+)", name)
    if match is None:
        return None
    level, layer, rest = int(match[2]), int(match[4]), _inner(match[5], _RESNET_BACK)
    is_down = match[1] == "down"
    number = level * blocks.per_level + layer + (1 if is_down else 0)
    side = "input_blocks" if is_down else "output_blocks"
    if match[3] == "resnets":
        return f"{side}.{number}.0.{rest}"
    if match[3] == "attentions":
        return f"{side}.{number}.1.{rest}"
    if match[3] == "downsamplers" and is_down:
        return f"{side}.{(level + 1) * blocks.per_level}.0.op.{rest.removeprefix('conv.')}"
    if match[3] == "upsamplers" and not is_down:
        place = 2 if match[2] in with_attention else 1
        return f"{side}.{level * blocks.per_level + blocks.layers_per_block}.{place}.{rest}"
    return None


_VAE_PARTS = {
    "mid.block_1": "mid_block.resnets.0",
    "mid.attn_1": "mid_block.attentions.0",
    "mid.block_2": "mid_block.resnets.1",
    "norm_out": "conv_norm_out",
    "conv_in": "conv_in",
    "conv_out": "conv_out",
}
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_OLD_VAE_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
"""Names inside an attention layer before diffusers 0.17."""
_VAE_RESNET = {"nin_shortcut": "conv_shortcut"}
_VAE_PARTS_BACK = {new: old for old, new in _VAE_PARTS.items()}
_VAE_ATTENTION_BACK = {new: old for old, new in _VAE_ATTENTION.items()}
_VAE_RESNET_BACK = {new: old for old, new in _VAE_RESNET.items()}
_VAE_BLOCK = r"(down|up)_blocks\.(\d{1,4})\.(resnets|downsamplers|upsamplers)\.(\d{1,4})\.(.+)"
_VAE_ATTENTION_WEIGHT = re.compile(r"\.(to_q|to_k|to_v|to_out\.0|q|k|v|proj_out)\.weight$")


def vae_to_diffusers(tensors: Mapping[str, LazyTensor]) -> Mapped:
    num_levels = len(_numbers(tensors, r"decoder\.up\.(\d{1,4})\."))
    mapped, rest = _renamed(tensors, lambda name: _vae_name_to_diffusers(name, num_levels))
    return _with_flat_attention(mapped), rest


def vae_from_old_diffusers(tensors: Mapping[str, LazyTensor]) -> Mapped:
    """Give the attention layers of any diffusers version the names of 0.17 and later."""

    def new_name(name: str) -> str:
        head, mark, inner = name.partition(".mid_block.attentions.0.")
        return f"{head}{mark}{_inner(inner, _OLD_VAE_ATTENTION)}" if mark else name

    mapped, rest = _renamed(tensors, new_name)
    return _with_flat_attention(mapped), rest


def vae_to_original(tensors: Mapping[str, LazyTensor]) -> Mapped:
    num_levels = len(_numbers(tensors, r"decoder\.up_blocks\.(\d{1,4})\."))
    mapped, rest = _renamed(tensors, lambda name: _vae_name_to_original(name, num_levels))
    for name, tensor in mapped.items():
        if ".attn_1." in name and _VAE_ATTENTION_WEIGHT.search(name):
            mapped[name] = tensor.reshaped((*tensor.shape[:2], 1, 1))
    return mapped, rest


def _with_flat_attention(tensors: Tensors) -> Tensors:
    """Make linear layers of the 1x1 convolutions; the numbers are the same."""
    for name, tensor in tensors.items():
        if ".mid_block.attentions." in name and _VAE_ATTENTION_WEIGHT.search(name):
            tensors[name] = tensor.reshaped(tensor.shape[:2])
    return tensors


def _vae_name_to_diffusers(name: str, num_levels: int) -> str | None:
    if re.match(r"(post_)?quant_conv\.", name):
        return name
    match = re.fullmatch(r"(encoder|decoder)\.(.+)", name)
    if match is None:
        return None
    side, inside = match[1], match[2]
    for old, new in _VAE_PARTS.items():
        if inside.startswith(f"{old}."):
            names = _VAE_ATTENTION if "attn" in old else _VAE_RESNET
            return f"{side}.{new}.{_inner(inside.removeprefix(f'{old}.'), names)}"
    match = re.fullmatch(
        r"(down|up)\.(\d{1,4})\.(block\.(\d{1,4})|downsample|upsample)\.(.+)", inside
    )
    if match is None:
        return None
    level = int(match[2]) if match[1] == "down" else num_levels - 1 - int(match[2])
    part = f"resnets.{match[4]}" if match[4] is not None else f"{match[3]}rs.0"
    return f"{side}.{match[1]}_blocks.{level}.{part}.{_inner(match[5], _VAE_RESNET)}"


def _vae_name_to_original(name: str, num_levels: int) -> str | None:
    if re.match(r"(post_)?quant_conv\.", name):
        return name
    match = re.fullmatch(r"(encoder|decoder)\.(.+)", name)
    if match is None:
        return None
    side, inside = match[1], match[2]
    for new, old in _VAE_PARTS_BACK.items():
        if inside.startswith(f"{new}."):
            names = _VAE_ATTENTION_BACK if "attn" in old else _VAE_RESNET_BACK
            return f"{side}.{old}.{_inner(inside.removeprefix(f'{new}.'), names)}"
    match = re.fullmatch(_VAE_BLOCK, inside)
    if match is None:
        return None
    level = int(match[2]) if match[1] == "down" else num_levels - 1 - int(match[2])
    part = f"block.{match[4]}" if match[3] == "resnets" else match[3].removesuffix("rs")
    return f"{side}.{match[1]}.{level}.{part}.{_inner(match[5], _VAE_RESNET_BACK)}"


TEXT_LEVEL = "text_model."


def clip_to_diffusers(tensors: Mapping[str, LazyTensor]) -> Mapped:
    """OpenAI's CLIP as SD 1.x files have it, with or without the `text_model.` level."""

    def new_name(name: str) -> str | None:
        inner = name.removeprefix(TEXT_LEVEL)
        if inner.endswith("position_ids"):
            return None
        is_known = inner.startswith(("embeddings.", "encoder.", "final_layer_norm."))
        return TEXT_LEVEL + inner if is_known else None

    return _renamed(tensors, new_name)


_OPEN_CLIP_ENDS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPEN_CLIP_LAYER_BACK = {new: old for old, new in _OPEN_CLIP_LAYER.items()}
_QKV = ("q_proj", "k_proj", "v_proj")


def open_clip_to_diffusers(tensors: Mapping[str, LazyTensor], *, num_layers: int) -> Mapped:
    """OpenCLIP as SD 2.x files have it. Layers from `num_layers` on have no place."""
    mapped: Tensors = {}
    rest: Tensors = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"transformer\.resblocks\.(\d{1,4})\.(.+)", name)
        if name in _OPEN_CLIP_ENDS:
            mapped[_OPEN_CLIP_ENDS[name]] = tensor
        elif match is None or int(match[1]) >= num_layers:
            rest[name] = tensor
        elif (qkv := re.fullmatch(r"attn\.in_proj_(weight|bias)", match[2])) is not None:
            width = tensor.shape[0] // 3
            for number, part in enumerate(_QKV):
                new = f"text_model.encoder.layers.{match[1]}.self_attn.{part}.{qkv[1]}"
                mapped[new] = tensor.rows(number * width, (number + 1) * width)
        else:
            inner = _inner(match[2], _OPEN_CLIP_LAYER)
            mapped[f"text_model.encoder.layers.{match[1]}.{inner}"] = tensor
    return mapped, rest


def open_clip_to_original(tensors: Mapping[str, LazyTensor]) -> Mapped:
    """The layers that are there; what SD 2.x files have beside them is not made up here."""
    ends = {new: old for old, new in _OPEN_CLIP_ENDS.items()}
    mapped: Tensors = {}
    rest: Tensors = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"text_model\.encoder\.layers\.(\d{1,4})\.(.+)\.(weight|bias)", name)
        if name in ends:
            mapped[ends[name]] = tensor
        elif match is None:
            rest[name] = tensor
        elif (part := match[2].removeprefix("self_attn.")) in _QKV:
            names = [name.replace(part, other) for other in _QKV]
            if part == _QKV[0] and all(other in tensors for other in names):
                new = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"
                mapped[new] = joined([tensors[other] for other in names])
        elif match[2] in _OPEN_CLIP_LAYER_BACK:
            inner = _OPEN_CLIP_LAYER_BACK[match[2]]
            mapped[f"transformer.resblocks.{match[1]}.{inner}.{match[3]}"] = tensor
        else:
            rest[name] = tensor
    return mapped, rest


def ema_name(unet_name: str) -> str:
    """Return what an original checkpoint calls the running average of a U-Net tensor.

    In: a name of the original layout with its prefix. Source: LitEma of CompVis' latent-diffusion,
    which takes the dots out of the name inside `model`.
    """
    return "model_ema." + unet_name.removeprefix("model.").replace(".", "")


def _numbers(names: Iterable[str], pattern: str) -> set[str]:
    """Return the different numbers that the pattern's group finds at the start of the names."""
    return {match[1] for name in names if (match := re.match(pattern, name))}


def _inner(name: str, names: Mapping[str, str]) -> str:
    """Rename the front of a name where the table has it."""
    for old, new in names.items():
        if name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name


def _renamed(tensors: Mapping[str, LazyTensor], new_name: Callable[[str], str | None]) -> Mapped:
    mapped: Tensors = {}
    rest: Tensors = {}
    for name, tensor in tensors.items():
        new = new_name(name)
        if new is None or new in mapped:
            rest[name] = tensor
        else:
            mapped[new] = tensor
    return mapped, rest
