"""What a model file is, told without reading its weights.

In: a path. Out: ModelFacts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdft.errors import Problem
from sdft.models.family import SD1, SD1_GENERATION, SD2_BASE, SD2_V, V_PREDICTION, Family
from sdft.models.open import open_model
from sdft.models.source import PARTS, ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    num_tensors: int
    num_parameters: int
    num_bytes: int
    dtypes: tuple[str, ...]
    """By safetensors' names, such as `F16`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    path: Path
    form: str
    """`safetensors`, `ckpt`, `diffusers` or `diffusers_safetensors`."""
    family: str | None
    """`sd1`, `sd2-base`, `sd2-v`; None for an SD 2.x that does not say what it predicts."""
    title: str
    prediction_type: str | None
    parts: Mapping[str, PartFacts]
    """The networks that are there."""
    num_ema_tensors: int
    extras: tuple[str, ...]
    """Tensors that no network has, by original names."""
    unexpected: Mapping[str, tuple[str, ...]]
    """Of each network, tensors that such a network does not have."""
    metadata: Mapping[str, str]
    left_out: tuple[str, ...]
    problems: tuple[Problem, ...]
    """What keeps the model from being used; empty for a whole one."""


def inspect_model(path: Path) -> ModelFacts:
    """Tell what a model is from its names, shapes and metadata.

    Raises: UserError where there is nothing; DataError where the file is of another kind or
        damaged. A part or tensor that is missing is in `problems` instead.
    """
    return facts_of(open_model(path))


def facts_of(model: ModelSource) -> ModelFacts:
    family, prediction_type = _family(model)
    problems = tuple(model.problems())
    return ModelFacts(
        path=model.path,
        form=model.form,
        family=family.name if family else None,
        title=family.title if family else "Stable Diffusion 2.x",
        prediction_type=prediction_type,
        parts={part: _part(model, part) for part in PARTS if part in model.weights},
        num_ema_tensors=len(model.ema),
        extras=tuple(sorted(model.extras)),
        unexpected={} if problems else model.unexpected(),
        metadata=model.metadata,
        left_out=model.left_out,
        problems=problems,
    )


def _family(model: ModelSource) -> tuple[Family | None, str | None]:
    stated = model.stated_prediction
    if model.generation == SD1_GENERATION:
        return SD1, stated or SD1.prediction_type
    if stated is None:
        return None, None
    return (SD2_V if stated == V_PREDICTION else SD2_BASE), stated


def _part(model: ModelSource, part: str) -> PartFacts:
    tensors = model.weights[part].values()
    return PartFacts(
        num_tensors=len(tensors),
        num_parameters=sum(tensor.num_elements for tensor in tensors),
        num_bytes=sum(tensor.num_bytes for tensor in tensors),
        dtypes=tuple(sorted({tensor.dtype for tensor in tensors})),
    )
