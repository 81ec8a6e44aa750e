"""Writes a model as a diffusers folder that old and new programs read.

Key names are those of diffusers 0.17 and later and of transformers 4 (with `text_model.`), the
tokenizer comes as vocab.json and merges.txt. What the layout has no place for goes into
`sdft_extra.safetensors`, so that the way back to one file loses nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdft.export.layout import network_of
from sdft.export.single_file import in_precision, lazy_extras, lazy_weights
from sdft.files import require_space, whole_folder
from sdft.formats.clip_tokens import write_tokenizer_files
from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_write import write_safetensors
from sdft.formats.zip_pickle import Scalar
from sdft.formats.zip_pickle_write import write_pickled_weights
from sdft.models.configs import Config, model_index_config, scheduler_config
from sdft.models.family import Family
from sdft.models.folder import EXTRA_FILE, PICKLE_STEMS, SCALARS_KEY, WEIGHT_STEMS

if TYPE_CHECKING:
    from torch import Tensor


def save_diffusers_folder(
    path: Path,
    *,
    unet: Mapping[str, Tensor],
    text_encoder: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    configs: Mapping[str, Config],
    family: Family,
    prediction_type: str,
    safetensors: bool,
    save_precision: str | None,
    metadata: Mapping[str, str],
    extras: Mapping[str, Tensor],
    scalars: Mapping[str, Scalar] | None = None,
    zero_terminal_snr: bool = False,
    on_overflow: Callable[[str], None] = lambda _: None,
) -> int:
    """Write networks that are in memory; return the bytes of all files.

    `configs` has `config.json` of each network (`ModelBundle.configs`), and may have that of the
    scheduler. `safetensors` chooses between .safetensors and .bin files. Other parameters as in
    `save_single_file`.
    Raises: FileExistsError where the folder exists; EnvironmentFault.
    """
    networks = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    return write_diffusers_folder(
        path,
        weights={part: lazy_weights(part, tensors) for part, tensors in networks.items()},
        extras=lazy_extras(extras),
        configs=configs,
        family=family,
        prediction_type=prediction_type,
        safetensors=safetensors,
        save_precision=save_precision,
        metadata=metadata,
        scalars=scalars or {},
        zero_terminal_snr=zero_terminal_snr,
        on_overflow=on_overflow,
    )


def write_diffusers_folder(
    path: Path,
    *,
    weights: Mapping[str, Mapping[str, LazyTensor]],
    extras: Mapping[str, LazyTensor],
    configs: Mapping[str, Config],
    family: Family,
    prediction_type: str,
    safetensors: bool,
    save_precision: str | None,
    metadata: Mapping[str, str],
    scalars: Mapping[str, Scalar],
    zero_terminal_snr: bool = False,
    on_overflow: Callable[[str], None] = lambda _: None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> int:
    """Write lazy tensors block by block, as `save_diffusers_folder` writes those in memory."""
    parts = {
        part: {
            name: in_precision(name, tensor, save_precision, on_overflow)
            for name, tensor in tensors.items()
        }
        for part, tensors in weights.items()
    }
    kept = {
        name: in_precision(name, tensor, save_precision, on_overflow)
        if network_of(name)
        else tensor
        for name, tensor in extras.items()
    }
    every = [tensor for tensors in (*parts.values(), kept) for tensor in tensors.values()]
    require_space(path.parent, sum(tensor.num_bytes for tensor in every), "this model")
    scheduler = _scheduler(configs.get("scheduler"), prediction_type, zero_terminal_snr)
    with whole_folder(path) as folder:
        for part, tensors in parts.items():
            (folder / part).mkdir()
            _write_json(folder / part / "config.json", configs[part])
            _write_weights(folder / part, part, tensors, safetensors, on_bytes)
        write_tokenizer_files(folder / "tokenizer", family.tokenizer_padding)
        (folder / "scheduler").mkdir()
        _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        index = model_index_config() | {"scheduler": ["diffusers", scheduler["_class_name"]]}
        _write_json(folder / "model_index.json", index)
        _write_extra(folder / EXTRA_FILE, kept, metadata, scalars, on_bytes)
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _write_weights(
    folder: Path,
    part: str,
    tensors: Mapping[str, LazyTensor],
    safetensors: bool,
    on_bytes: Callable[[int], None],
) -> None:
    if safetensors:
        with (folder / f"{WEIGHT_STEMS[part]}.safetensors").open("wb") as file:
            head = {"format": "pt"}
            write_safetensors(file, tensors, head, with_hash=False, on_bytes=on_bytes)
    else:
        with (folder / f"{PICKLE_STEMS[part]}.bin").open("wb") as file:
            write_pickled_weights(file, tensors, scalars=None, on_bytes=on_bytes)


def _write_extra(
    path: Path,
    extras: Mapping[str, LazyTensor],
    metadata: Mapping[str, str],
    scalars: Mapping[str, Scalar],
    on_bytes: Callable[[int], None],
) -> None:
    texts = dict(metadata)
    if scalars:
        texts[SCALARS_KEY] = json.dumps(dict(scalars), sort_keys=True)
    if extras or texts:
        with path.open("wb") as file:
            write_safetensors(file, extras, texts, with_hash=False, on_bytes=on_bytes)


def _scheduler(given: Config | None, prediction_type: str, zero_terminal_snr: bool) -> Config:
    config = dict(given) if given else scheduler_config(prediction_type)
    config["prediction_type"] = prediction_type
    name = config.get("_class_name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]+Scheduler", name):
        config["_class_name"] = "DDIMScheduler"
    if zero_terminal_snr:
        # Sampling has to begin at the last step, the only one that holds no picture at all.
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def _write_json(path: Path, value: Config) -> None:
    path.write_bytes((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
