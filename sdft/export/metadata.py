"""What a model file says of itself: the `modelspec.` fields. Needs no torch.

Source: Stability's model metadata standard, version 1.0.1, as sd-scripts fills it in.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from sdft import __version__
from sdft.errors import UserError
from sdft.formats.safetensors_write import HASH_KEY
from sdft.models.family import V_PREDICTION, Family

_SPEC_VERSION = "1.0.1"
_IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
"""Names the layout of the key names, which is Stability's, not the program that trained."""
NUM_TIMESTEPS = 1000
"""Steps of the noise schedule that SD is trained with."""
_CARRIED = ("author", "description", "license", "tags", "usage_hint", "thumbnail", "merged_from")


def modelspec_metadata(
    *,
    family: Family,
    prediction_type: str,
    title: str,
    resolution: tuple[int, int],
    date_s: float,
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
    timestep_range: tuple[int | None, int | None] = (None, None),
    clip_skip: int | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the fields of a trained model; a field that is None is left out.

    `resolution` is (width, height) in px, `date_s` seconds since 1970, `thumbnail` a data URL
    (`thumbnail_url`). Licence, origin and the like of the `base` model's metadata are carried
    over where they are not given anew.
    """
    fields = {
        "sai_model_spec": _SPEC_VERSION,
        "architecture": family.modelspec_architecture,
        "implementation": _IMPLEMENTATION,
        "implementation_version": f"sdft/{__version__}",
        "title": title,
        "resolution": f"{resolution[0]}x{resolution[1]}",
        "date": datetime.fromtimestamp(date_s, UTC).isoformat(timespec="seconds"),
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
        "timestep_range": _timesteps(*timestep_range),
        "encoder_layer": None if clip_skip is None else str(clip_skip),
    }
    said = {f"modelspec.{name}": value for name, value in fields.items() if value is not None}
    carried = {f"modelspec.{name}" for name in _CARRIED}
    return {name: text for name, text in (base or {}).items() if name in carried} | said


def _timesteps(first: int | None, last: int | None) -> str | None:
    if first is None and last is None:
        return None
    return f"{0 if first is None else first},{NUM_TIMESTEPS if last is None else last}"


def thumbnail_url(text: str) -> str:
    """Return a thumbnail as a data URL: the text itself if it is one, else the image file.

    Raises: UserError where it is neither; a path never goes into a model's metadata.
    """
    if text.startswith("data:"):
        return text
    path = Path(text)
    kind, _ = mimetypes.guess_type(path.name)
    if kind is None or not kind.startswith("image/") or not path.is_file():
        raise UserError(
            what="the thumbnail is neither a data URL nor an image file",
            where=text[:200],
            fix="give a .png, .jpg or .webp file",
        )
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def converted_metadata(
    source: Mapping[str, str], family: Family, prediction_type: str | None, *, title: str
) -> dict[str, str]:
    """Return the metadata of a converted file: all of the source's, and what it lacked.

    Out: no hash, which belongs to the bytes of one file, and no `format`, which each form has.
    What the model predicts, and the architecture that follows from it, is left as the source has
    it where `prediction_type` is None.
    """
    told = {
        "modelspec.sai_model_spec": _SPEC_VERSION,
        "modelspec.implementation": _IMPLEMENTATION,
        "modelspec.title": title,
        "modelspec.resolution": f"{family.resolution_px}x{family.resolution_px}",
    }
    kept = {key: value for key, value in source.items() if key not in (HASH_KEY, "format")}
    if prediction_type is None:
        return told | kept
    decided = {
        "modelspec.architecture": family.modelspec_architecture,
        "modelspec.prediction_type": spec_prediction(prediction_type),
    }
    return told | kept | decided


def spec_prediction(prediction_type: str) -> str:
    """Return the word that `modelspec.prediction_type` has for it."""
    return "v" if prediction_type == V_PREDICTION else "epsilon"
