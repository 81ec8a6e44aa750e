"""Converting destroys nothing, and what it writes is whole or absent."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sdft import files
from sdft.errors import EnvironmentFault, UserError
from sdft.events import StageProgress
from sdft.jobs import convert as convert_job
from sdft.models.open import open_model
from tests.tensor.export.converting import convert


def test_what_exists_is_replaced_only_when_that_is_said(toys, tmp_path):
    file = convert(toys["sd1"], tmp_path / "a.safetensors")
    folder = convert(toys["sd1"], tmp_path / "folder")
    before = file.read_bytes()
    for destination in (file, folder):
        with pytest.raises(UserError, match="exists already") as caught:
            convert(toys["sd2-v"], destination)
        assert "--overwrite" in caught.value.problems[0].fix
    assert file.read_bytes() == before
    for destination in (file, folder):
        convert(toys["sd2-v"], destination, overwrite=True)
        assert open_model(destination).generation == "sd2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "folder"]


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "diffusers_safetensors"])
def test_a_model_can_be_replaced_by_its_own_copy(toys, tmp_path, form):
    path = convert(toys["sd1"], tmp_path / "a", form=form)
    with pytest.raises(UserError, match="source and destination are the same"):
        convert(path, path, form=form)
    convert(path, path, form=form, save_precision="fp16", overwrite=True)
    source = open_model(path)
    source.check()
    assert {tensor.dtype for tensor in source.weights["unet"].values()} == {"F16"}


def test_a_file_that_someone_has_mapped_is_replaced_and_stays_readable_for_them(toys, tmp_path):
    path = convert(toys["sd1"], tmp_path / "a.safetensors")
    with safe_open(path, "pt") as mapped:
        convert(path, path, save_precision="fp16", overwrite=True)
        name = "model.diffusion_model.out.2.bias"
        assert mapped.get_tensor(name).dtype == torch.float32
    assert load_file(path)[name].dtype == torch.float16


def test_a_folder_that_is_no_model_or_holds_what_is_read_is_never_removed(toys, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="no diffusers model, so it is not overwritten"):
        convert(toys["sd1"], precious, overwrite=True)
    folder = convert(toys["sd1"], tmp_path / "folder")
    inside = convert(toys["sd1"], folder / "inside.safetensors")
    with pytest.raises(UserError, match="would remove"):
        convert(inside, folder, overwrite=True)
    with pytest.raises(UserError, match="inside the model"):
        convert(folder, folder / "sub")
    with pytest.raises(UserError, match="this is a folder, and the copy would be a file"):
        convert(toys["sd1"], folder, form="safetensors", overwrite=True)
    assert (precious / "thesis.txt").exists()
    assert inside.exists()


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "diffusers_safetensors"])
def test_an_interrupted_conversion_leaves_nothing(toys, tmp_path, monkeypatch, form):
    monkeypatch.setattr(convert_job, "PROGRESS_BYTES", 2**22)

    def interrupt(event):
        if isinstance(event, StageProgress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(toys["sd1"], tmp_path / "a", form=form, emit=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "diffusers_safetensors"])
def test_too_little_disk_is_said_before_anything_is_written(toys, tmp_path, monkeypatch, form):
    full = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: full)
    with pytest.raises(EnvironmentFault, match=r"needs 32 MB, 1 MB are free"):
        convert(toys["sd1"], tmp_path / "a", form=form)
    assert list(tmp_path.iterdir()) == []
