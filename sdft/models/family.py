"""The kinds of Stable Diffusion that `sdft` trains. One row a kind; needs no torch.

A family says what the shapes of a file cannot: how its captions are padded, how its attention
heads are counted, and what its U-Net predicts unless the file says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdft.errors import UserError

EPSILON = "epsilon"
V_PREDICTION = "v_prediction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    title: str
    """The name that people know it by."""
    context_width: int
    """Width of the text encoder's output in the published models."""
    resolution_px: int
    """Side of the square pictures that the published model was trained on."""
    tokenizer_padding: str
    """What fills a caption's tokens up to 77: `eos`, or `zero` for token 0."""
    unet_heads: int | None
    """Attention heads of every U-Net level; none where it is channels / 64."""
    prediction_type: str
    upcast_attention: bool
    """Whether attention scores leave the range of fp16, so that they are made in float32."""
    text_activation: str
    """`quick_gelu` in OpenAI's CLIP, `gelu` in OpenCLIP."""
    modelspec_architecture: str
    """The name in `modelspec.architecture`."""

    def heads_of(self, width: int) -> int:
        """Return the attention heads of a U-Net level with `width` channels."""
        return self.unet_heads or max(1, width // 64)


SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    context_width=768,
    resolution_px=512,
    tokenizer_padding="eos",
    unet_heads=8,
    prediction_type=EPSILON,
    upcast_attention=False,
    text_activation="quick_gelu",
    modelspec_architecture="stable-diffusion-v1",
)
SD2_BASE = Family(
    name="sd2-base",
    title="Stable Diffusion 2.x base",
    context_width=1024,
    resolution_px=512,
    tokenizer_padding="zero",
    unet_heads=None,
    prediction_type=EPSILON,
    upcast_attention=False,
    text_activation="gelu",
    modelspec_architecture="stable-diffusion-v2-512",
)
SD2_V = Family(
    name="sd2-v",
    title="Stable Diffusion 2.x 768-v",
    context_width=1024,
    resolution_px=768,
    tokenizer_padding="zero",
    unet_heads=None,
    prediction_type=V_PREDICTION,
    upcast_attention=True,
    text_activation="gelu",
    modelspec_architecture="stable-diffusion-v2-768-v",
)

FAMILIES: dict[str, Family] = {family.name: family for family in (SD1, SD2_BASE, SD2_V)}

SD1_GENERATION = "sd1"
SD2_GENERATION = "sd2"


def stated_prediction(metadata: Mapping[str, str]) -> str | None:
    """Return what a file's metadata says that its U-Net predicts, or None."""
    said = metadata.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction", "v-prediction"):
        return V_PREDICTION
    if said in ("epsilon", "eps"):
        return EPSILON
    architecture = metadata.get("modelspec.architecture", "")
    for family in (SD2_V, SD2_BASE):
        if architecture == family.modelspec_architecture:
            return family.prediction_type
    return None


def settle_family(
    generation: str,
    stated: str | None,
    *,
    v2: bool | None,
    v_parameterization: bool | None,
    where: str,
) -> tuple[Family, str, tuple[str, ...]]:
    """Decide family and prediction from what a file says and what the person says.

    Out: the family, `epsilon` or `v_prediction`, and what the person should be told.
    Raises: UserError where the two contradict, or where nothing tells what an SD 2.x predicts.
    """
    if v2 is not None and v2 != (generation == SD2_GENERATION):
        title = "Stable Diffusion 2.x" if generation == SD2_GENERATION else SD1.title
        flag = "--v2" if v2 else "--no-v2"
        raise UserError(
            what=f"this model is a {title}; {flag} does not fit it",
            where=where,
            fix=f"leave {flag} out",
        )
    asked = None
    if v_parameterization is not None:
        asked = V_PREDICTION if v_parameterization else EPSILON
    if asked and stated and asked != stated:
        flag = "--v_parameterization" if v_parameterization else "--no-v_parameterization"
        raise UserError(
            what=f"this model says of itself that it predicts {stated}; {flag} does not fit it",
            where=where,
            fix=f"leave {flag} out; if what it says is wrong, write it anew with "
            "`sdft convert --prediction_type`",
        )
    prediction = asked or stated
    if generation == SD1_GENERATION:
        return SD1, prediction or SD1.prediction_type, ()
    notices: tuple[str, ...] = ()
    if prediction is None and v2:
        # In sd-scripts --v2 without --v_parameterization means a base model.
        prediction = EPSILON
        notices = (
            "--v2 without --v_parameterization is taken for an SD 2.x base model, which predicts "
            "noise; the file does not say",
        )
    if prediction is None:
        raise UserError(
            what="this is a Stable Diffusion 2.x, and neither its metadata nor its shapes tell "
            "whether it is a 768-v model (which predicts v) or a base model (which predicts noise)",
            where=where,
            fix="say --v_parameterization for a 768-v model, --no-v_parameterization for a base",
            key="prediction_unknown",
        )
    return (SD2_V if prediction == V_PREDICTION else SD2_BASE), prediction, notices
