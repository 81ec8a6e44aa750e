"""Makes the lists of names and shapes of Stable Diffusion files, by programs that are not ours.

    git clone https://github.com/Stability-AI/stablediffusion TARGET/stablediffusion
    python -m pip install --target TARGET --no-deps open_clip_torch
    python tests/golden/make_model_names.py TARGET

Made with Stability-AI/stablediffusion at cf1d67a, open_clip_torch 3.3.0, diffusers 0.42.1 and
transformers 5.23.0. The networks of the original layout are built by Stability's own classes on
torch's meta device, with the numbers of CompVis' v1-inference.yaml and Stability's
v2-inference.yaml; the text encoder of SD 2.x by OpenCLIP's (ViT-H-14), that of SD 1.x by
transformers'. What those programs import and do not need for building is replaced by nothing.

Out: sd1_original.txt, sd2_original.txt, sd1_diffusers.txt, sd2_diffusers.txt beside this file;
one tensor a line, its name and the lengths of its axes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch

HERE = Path(__file__).parent
ABSENT = ("einops", "torchvision", "torchvision.ops", "torchvision.ops.misc", "timm", "ftfy")
ABSENT += ("torchvision.transforms", "torchvision.transforms.functional", "regex", "omegaconf")
ABSENT += ("omegaconf.listconfig",)

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "legacy": False,
    "use_checkpoint": True,
}
UNET_OF = {
    "sd1": UNET | {"num_heads": 8, "context_dim": 768},
    "sd2": UNET | {"num_head_channels": 64, "use_linear_in_transformer": True, "context_dim": 1024},
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def shapes(prefix: str, module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {prefix + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def original(generation: str) -> dict[str, tuple[int, ...]]:
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    vae = "first_stage_model."
    found = shapes("model.diffusion_model.", UNetModel(**UNET_OF[generation]))
    found |= shapes(f"{vae}encoder.", Encoder(**VAE))
    found |= shapes(f"{vae}decoder.", Decoder(**VAE))
    # As ldm.models.autoencoder.AutoencoderKL makes them, with embed_dim 4.
    found |= shapes(f"{vae}quant_conv.", torch.nn.Conv2d(8, 8, 1))
    found |= shapes(f"{vae}post_quant_conv.", torch.nn.Conv2d(4, 4, 1))
    if generation == "sd1":
        return found | text_shapes("cond_stage_model.transformer.", openai_clip())
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=1024, heads=16, layers=24)
    model = CLIP(1024, CLIPVisionCfg(layers=1, width=64, head_width=64), text)
    # As ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder does.
    del model.visual
    return found | shapes("cond_stage_model.model.", model)


def openai_clip() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    )


def text_shapes(prefix: str, model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """With the level that transformers has left out of its names since 5.6."""
    found = shapes("", model)
    return {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": s for name, s in found.items()
    }


def diffusers_names(generation: str) -> dict[str, tuple[int, ...]]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        cross_attention_dim=768 if generation == "sd1" else 1024,
        use_linear_projection=generation == "sd2",
        attention_head_dim=8 if generation == "sd1" else (5, 10, 20, 20),
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
    )
    text = openai_clip()
    if generation == "sd2":
        sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
        text = CLIPTextModel(CLIPTextConfig(**sizes, num_hidden_layers=23))
    return shapes("unet/", unet) | shapes("vae/", vae) | text_shapes("text_encoder/", text)


def write(name: str, found: dict[str, tuple[int, ...]]) -> None:
    lines = [f"{tensor} {' '.join(map(str, shape))}".rstrip() for tensor, shape in found.items()]
    (HERE / name).write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    print(name, len(lines))


def main(target: Path) -> None:
    from importlib.util import find_spec

    # diffusers and transformers look for these themselves, so they come first.
    with torch.device("meta"):
        for generation in ("sd1", "sd2"):
            write(f"{generation}_diffusers.txt", diffusers_names(generation))
    sys.modules |= {name: MagicMock() for name in ABSENT if find_spec(name.split(".")[0]) is None}
    sys.path += [str(target / "stablediffusion"), str(target)]
    with torch.device("meta"):
        for generation in ("sd1", "sd2"):
            write(f"{generation}_original.txt", original(generation))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
