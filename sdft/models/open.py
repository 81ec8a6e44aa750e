"""Opens a model, or a VAE alone, by its path, whatever its form."""

from __future__ import annotations

from pathlib import Path

from sdft.errors import DataError
from sdft.formats.lazy import LazyTensor
from sdft.formats.tensor_file import open_tensor_file
from sdft.models import keymap
from sdft.models.folder import open_folder, open_part, read_config
from sdft.models.hub import from_hub
from sdft.models.single_file import VAE_PREFIX, open_single_file
from sdft.models.source import ModelSource, VaeSource

SD_SCALING_FACTOR = 0.18215
_SDXL_ADVICE = "use a VAE of Stable Diffusion 1.x or 2.x"


def open_model(
    path: Path, *, vae_path: Path | None = None, variant: str | None = None
) -> ModelSource:
    """Open a model; with `vae_path` its VAE is replaced.

    A path that does not exist may be an ID of the Hugging Face hub.
    Raises: UserError where there is nothing at the path; DataError where it is no usable model.
        What is missing inside is for the caller to check (`ModelSource.check`).
    """
    path = path if path.exists() else from_hub(path, "model")
    source = open_folder(path, variant=variant) if path.is_dir() else open_single_file(path)
    return source if vae_path is None else source.with_vae(open_vae(vae_path))


def open_vae(path: Path) -> VaeSource:
    """Open a VAE: a file in either layout, a whole model, or a diffusers folder.

    Raises: UserError where there is nothing at the path; DataError where it is no VAE.
    """
    path = path if path.exists() else from_hub(path, "VAE")
    if path.is_dir():
        return _vae_folder(path)
    tensors = open_tensor_file(path).all_lazy()
    inside = {n.removeprefix(VAE_PREFIX): t for n, t in tensors.items() if n.startswith(VAE_PREFIX)}
    return VaeSource(path=path, weights=_vae_weights(path, inside or tensors))


def _vae_folder(path: Path) -> VaeSource:
    folder = path / "vae" if (path / "vae").is_dir() else path
    config = read_config(folder / "config.json")
    scale = config.get("scaling_factor", SD_SCALING_FACTOR)
    if scale != SD_SCALING_FACTOR:
        raise DataError(
            what=f"the latents of this VAE have another scale ({scale}); it belongs to SDXL or a "
            "later model",
            where=str(folder / "config.json"),
            fix=_SDXL_ADVICE,
        )
    return VaeSource(path=path, weights=open_part(folder, "vae"), config=config)


def _vae_weights(path: Path, tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    if any(name.startswith("decoder.up_blocks.") for name in tensors):
        return keymap.vae_from_old_diffusers(tensors)[0]
    if any(name.startswith("decoder.up.") for name in tensors):
        # A training checkpoint of a VAE has its loss and a discriminator beside it.
        return keymap.vae_to_diffusers(tensors)[0]
    raise DataError(what="there is no VAE in this file", where=str(path), fix=_SDXL_ADVICE)
