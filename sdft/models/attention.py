"""Which attention the U-Net runs, and the one that SD 2.1 needs in fp16.

torch's own scaled_dot_product_attention (SDPA) is the default: on a GPU it picks a flash or a
memory-efficient kernel, so `mem_eff_attn` and `sdpa` mean the same here. xformers is taken where
it is asked for and runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0, XFormersAttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

SDPA = "sdpa"
XFORMERS = "xformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionChoice:
    kind: str
    """`sdpa` or `xformers`."""
    upcast: bool
    """Whether scores are made in float32 where everything else is in fp16."""
    reason: str
    """Why it is not what was asked for, or an empty string."""

    def words(self) -> str:
        """Say in one line what runs."""
        name = {SDPA: "torch's scaled_dot_product_attention", XFORMERS: "xformers"}[self.kind]
        upcast = ", in float32 where the rest is in fp16" if self.upcast else ""
        return f"attention: {name}{upcast}" + (f" ({self.reason})" if self.reason else "")


def choose_attention(
    *, xformers: bool, device: torch.device | str, upcast: bool
) -> AttentionChoice:
    """Return what will run; nothing is an error, since SDPA is always there.

    `upcast` comes from the model (`family.upcast_attention`, or its config).
    """
    if not xformers:
        return AttentionChoice(kind=SDPA, upcast=upcast, reason="")
    reason = _why_no_xformers(torch.device(device))
    if not reason and upcast:
        reason = "xformers has no float32 scores for fp16 inputs, which this model needs"
    kind = SDPA if reason else XFORMERS
    return AttentionChoice(kind=kind, upcast=upcast, reason=reason)


def set_attention(unet: UNet2DConditionModel, choice: AttentionChoice) -> None:
    """Give every attention layer of the U-Net the processor of the choice."""
    if choice.kind == XFORMERS:
        unet.set_attn_processor(XFormersAttnProcessor())
    elif choice.upcast:
        unet.set_attn_processor(UpcastAttention())
    else:
        unet.set_attn_processor(AttnProcessor2_0())


def _why_no_xformers(device: torch.device) -> str:
    if device.type != "cuda":
        return "xformers runs on NVIDIA GPUs only"
    if find_spec("xformers") is None:
        return "xformers is not installed"
    try:
        from xformers.ops import memory_efficient_attention

        # A build for another torch imports, and fails when it is called.
        probe = torch.zeros(1, 8, 1, 40, device=device, dtype=torch.float16)
        memory_efficient_attention(probe, probe, probe)
    except (ImportError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        return f"xformers does not run here: {str(error).splitlines()[0]}"
    return ""


class UpcastAttention:
    """SDPA whose scores are made in float32 where the inputs are in fp16.

    The scores of SD 2.1 leave the range of fp16, and then the picture or the loss is not a number.
    diffusers' AttnProcessor2_0 does not look at `upcast_attention`. With other dtypes than fp16
    it computes what that one computes.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **unused: object,
    ) -> Tensor:
        # The U-Nets of SD have none of these; ignoring one would be wrong in silence.
        assert attention_mask is None
        assert attn.spatial_norm is None
        assert attn.group_norm is None
        assert not attn.norm_cross
        assert not attn.residual_connection
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = _heads_apart(attn.to_q(hidden_states), attn.heads)
        key = _heads_apart(attn.to_k(context), attn.heads)
        value = _heads_apart(attn.to_v(context), attn.heads)
        if query.dtype == torch.float16:
            # Autocast would turn the inputs back into fp16.
            with torch.autocast(query.device.type, enabled=False):
                mixed = functional.scaled_dot_product_attention(
                    query.float(), key.float(), value.float()
                ).to(query.dtype)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        joined = mixed.transpose(1, 2).flatten(2)
        dropped: Tensor = attn.to_out[1](attn.to_out[0](joined)) / attn.rescale_output_factor
        return dropped


def _heads_apart(projected_BSD: Tensor, heads: int) -> Tensor:
    """Shapes: [B, S, heads * d] in, [B, heads, S, d] out."""
    num_captions, num_tokens, _ = projected_BSD.shape
    return projected_BSD.view(num_captions, num_tokens, heads, -1).transpose(1, 2)
