"""What a model file says of itself: the `modelspec.` fields. Pure functions, no torch.

Source: Stability's model metadata standard, version 1.0.1, as sd-scripts fills it in.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdft import __version__
from sdft.formats.safetensors_write import HASH_KEY
from sdft.models.family import V_PREDICTION, Family

_SPEC_VERSION = "1.0.1"
_IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
"""Names the layout of the key names, which is Stability's, not the program that trained."""
_CARRIED = ("author", "description", "license", "tags", "usage_hint", "thumbnail", "merged_from")


def modelspec(
    family: Family,
    prediction_type: str,
    *,
    title: str,
    date: str,
    resolution_px: tuple[int, int],
    author: str | None = None,
    description: str | None = None,
    license: str | None = None,
    tags: str | None = None,
    usage_hint: str | None = None,
    thumbnail: str | None = None,
    merged_from: str | None = None,
    trigger_phrase: str | None = None,
    preprocessor: str | None = None,
    is_negative_embedding: str | None = None,
    timestep_range: tuple[int, int] | None = None,
    clip_skip: int | None = None,
) -> dict[str, str]:
    """Return the fields of a trained model; a field that is None is left out.

    `date` is ISO 8601, `resolution_px` is (width, height), `thumbnail` a data URL.
    """
    fields = {
        "sai_model_spec": _SPEC_VERSION,
        "architecture": family.modelspec_architecture,
        "implementation": _IMPLEMENTATION,
        "implementation_version": f"sdft/{__version__}",
        "title": title,
        "resolution": f"{resolution_px[0]}x{resolution_px[1]}",
        "date": date,
        "prediction_type": spec_prediction(prediction_type),
        "author": author,
        "description": description,
        "license": license,
        "tags": tags,
        "usage_hint": usage_hint,
        "thumbnail": thumbnail,
        "merged_from": merged_from,
        "trigger_phrase": trigger_phrase,
        "preprocessor": preprocessor,
        "is_negative_embedding": is_negative_embedding,
        "timestep_range": None if timestep_range is None else "{},{}".format(*timestep_range),
        "encoder_layer": None if clip_skip is None else str(clip_skip),
    }
    return {f"modelspec.{name}": value for name, value in fields.items() if value is not None}


def with_carried_fields(fields: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """Add licence, origin and the like of the base model where `fields` does not say them."""
    carried = {f"modelspec.{name}" for name in _CARRIED}
    return {name: value for name, value in base.items() if name in carried} | dict(fields)


def converted_metadata(
    source: Mapping[str, str], family: Family, prediction_type: str, *, title: str
) -> dict[str, str]:
    """Return the metadata of a converted file: all of the source's, and what it lacked.

    Out: no hash, which belongs to the bytes of one file, and no `format`, which each form has.
    """
    told = {
        "modelspec.sai_model_spec": _SPEC_VERSION,
        "modelspec.implementation": _IMPLEMENTATION,
        "modelspec.title": title,
        "modelspec.resolution": f"{family.resolution_px}x{family.resolution_px}",
    }
    kept = {key: value for key, value in source.items() if key not in (HASH_KEY, "format")}
    decided = {
        "modelspec.architecture": family.modelspec_architecture,
        "modelspec.prediction_type": spec_prediction(prediction_type),
    }
    return told | kept | decided


def spec_prediction(prediction_type: str) -> str:
    """Return the word that `modelspec.prediction_type` has for it."""
    return "v" if prediction_type == V_PREDICTION else "epsilon"
