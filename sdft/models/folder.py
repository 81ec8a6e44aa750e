"""A model as a diffusers folder, written by any version of diffusers and transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdft.errors import DataError
from sdft.formats.lazy import LazyTensor
from sdft.formats.tensor_file import SAFETENSORS, TensorFile, open_tensor_file
from sdft.models import keymap
from sdft.models.configs import Config
from sdft.models.family import EPSILON, SD1_GENERATION, SD2_GENERATION, V_PREDICTION
from sdft.models.refuse import refuse_other_kinds
from sdft.models.source import DIFFUSERS, DIFFUSERS_SAFETENSORS, PARTS, TITLES, ModelSource

EXTRA_FILE = "sdft_extra.safetensors"
"""Holds what the original layout has and a diffusers folder has no place for."""
SCALARS_KEY = "sdft.scalars"
"""In the metadata of EXTRA_FILE: the scalars of a .ckpt as JSON."""

WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
PICKLE_STEMS = WEIGHT_STEMS | {"text_encoder": "pytorch_model"}

Tensors = dict[str, LazyTensor]


def open_folder(path: Path, *, variant: str | None = None) -> ModelSource:
    """See a diffusers folder as three networks.

    `variant` takes the files of one variant, such as `fp16`; without it the plain ones are taken,
    and a variant's where there are no plain ones.
    Raises: DataError where a part is damaged, or where it is no such folder.
    """
    present = [part for part in PARTS if (path / part).is_dir()]
    if not present:
        raise DataError(
            what="this folder is no diffusers model: it has no unet, vae or text_encoder",
            where=str(path),
            fix="give the folder that has model_index.json, or a .safetensors or .ckpt file",
            key="no_diffusers_folder",
        )
    if "unet" not in present:
        raise DataError(what="this model has no U-Net", where=str(path), fix="use a whole model")
    files = {part: _weight_file(path / part, part, variant) for part in present}
    configs = {part: read_config(path / part / "config.json") for part in present}
    weights = {part: _by_current_names(part, _all_lazy(files[part])) for part in present}
    unet_shapes = {name: tensor.shape for name, tensor in weights["unet"].items()}
    refuse_other_kinds(unet_shapes, str(path))
    extra = path / EXTRA_FILE
    extra_file = open_tensor_file(extra) if extra.is_file() else None
    metadata = dict(extra_file.metadata) if extra_file is not None else {}
    scalars = json.loads(metadata.pop(SCALARS_KEY, "{}"))
    scheduler = _scheduler(path)
    if scheduler is not None:
        configs["scheduler"] = scheduler
    is_safetensors = all(file.form == SAFETENSORS for file in files["unet"])
    return ModelSource(
        path=path,
        form=DIFFUSERS_SAFETENSORS if is_safetensors else DIFFUSERS,
        generation=_generation(weights, configs),
        stated_prediction=_prediction(scheduler),
        weights=weights,
        given_configs=configs,
        extras=extra_file.all_lazy() if extra_file is not None else {},
        metadata=metadata,
        scalars=scalars,
    )


def read_config(path: Path) -> Config:
    """Raises: DataError where it is missing or no JSON object."""
    try:
        config: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise DataError(
            what="this file of the model is missing",
            where=str(path),
            fix="download the whole folder again",
        ) from None
    except ValueError as error:
        raise DataError(what=f"not a JSON file ({error})", where=str(path)) from error
    if not isinstance(config, dict):
        raise DataError(what="not a JSON object", where=str(path))
    return config


def open_part(folder: Path, part: str, variant: str | None = None) -> Tensors:
    """Return the tensors in the folder of one network, by current names."""
    return _by_current_names(part, _all_lazy(_weight_file(folder, part, variant)))


def _scheduler(path: Path) -> Config | None:
    file = path / "scheduler" / "scheduler_config.json"
    return read_config(file) if file.is_file() else None


def _prediction(scheduler: Config | None) -> str | None:
    if scheduler is None:
        return None
    # Where the key is absent, diffusers takes epsilon; the first folders were written so.
    said = scheduler.get("prediction_type", EPSILON)
    return said if said in (EPSILON, V_PREDICTION) else None


def _generation(weights: Mapping[str, Tensors], configs: Mapping[str, Config]) -> str:
    context_width = configs["unet"].get("cross_attention_dim")
    if context_width in (768, 1024):
        return SD1_GENERATION if context_width == 768 else SD2_GENERATION
    # A small model of the same topology.
    activation = configs.get("text_encoder", {}).get("hidden_act")
    if activation is not None:
        return SD2_GENERATION if activation == "gelu" else SD1_GENERATION
    is_linear = any(
        name.endswith(".proj_in.weight") and len(tensor.shape) == 2
        for name, tensor in weights["unet"].items()
    )
    return SD2_GENERATION if is_linear else SD1_GENERATION


def _by_current_names(part: str, tensors: Tensors) -> Tensors:
    if part == "vae":
        mapped, rest = keymap.vae_from_old_diffusers(tensors)
        return mapped | rest
    if part == "text_encoder":
        # Positions 0 .. 76, which old versions saved, are dropped: every program makes them.
        mapped, rest = keymap.clip_to_diffusers(tensors)
        return mapped | {n: t for n, t in rest.items() if not n.endswith("position_ids")}
    return tensors


def _all_lazy(files: list[TensorFile]) -> Tensors:
    return {name: tensor for file in files for name, tensor in file.all_lazy().items()}


def _weight_file(folder: Path, part: str, variant: str | None) -> list[TensorFile]:
    """Open the file of a network's weights, or its parts where it is cut into several."""
    safe, pickled = WEIGHT_STEMS[part], PICKLE_STEMS[part]
    marks = [f".{variant}"] if variant else ["", ".fp16"]
    for mark in marks:
        for name in (f"{safe}{mark}.safetensors", f"{pickled}{mark}.bin"):
            if (folder / name).is_file():
                return [open_tensor_file(folder / name)]
        index = folder / f"{safe}.safetensors.index{mark}.json"
        if index.is_file():
            return _shards(folder, index)
    there = sorted(
        file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")
    )
    raise DataError(
        what=f"the weights of the {TITLES[part]} are missing"
        + (f"; these are there: {', '.join(there)}" if there else ""),
        where=str(folder / f"{safe}{marks[0]}.safetensors"),
        fix="name the variant by --variant" if there else "download the whole folder again",
    )


def _shards(folder: Path, index: Path) -> list[TensorFile]:
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise DataError(what="names no files", where=str(index))
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # The index is a part of the model and may be as hostile as a pickle.
        if Path(name).name != name or not (folder / name).is_file():
            raise DataError(
                what=f'the file "{name}" is missing',
                where=str(index),
                fix="download the whole folder again",
            )
    return [open_tensor_file(folder / name) for name in names]
