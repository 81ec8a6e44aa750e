"""What a person can get wrong about models, pixels and folders, through the real command."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toy_model import save_toy_model
from tests.toy_pictures import write_pictures


@pytest.fixture(scope="module")
def toy_model(module_folder: Callable[[str], Path]) -> Path:
    folder = module_folder("toy") / "model"
    save_toy_model(folder, seed=1)
    return folder


@pytest.fixture
def config(tmp_path: Path, toy_model: Path) -> Path:
    """Twelve pictures, a dataset file and a file of training settings."""
    write_pictures(tmp_path / "images", 12, side_px=64)
    (tmp_path / "dataset.toml").write_text(
        """
[general]
caption_extension = ".txt"
[[datasets]]
resolution = 64
[[datasets.subsets]]
image_dir = "images"
"""
    )
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
pretrained_model_name_or_path = '{toy_model.as_posix()}'
dataset_config = "dataset.toml"
output_dir = "out"
max_train_steps = 1
"""
    )
    return path


def test_a_truncated_picture_is_named_and_the_others_are_encoded(sdft, config, tmp_path):
    path = tmp_path / "images" / "broken.png"
    whole = next((tmp_path / "images").glob("*.png")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    path.with_suffix(".txt").write_text("half a picture")
    ran = sdft("cache-latents", "config.toml", "--json")
    assert ran.code == 0, ran.err
    assert (ran.result["images"], ran.result["encoded"], ran.result["rejected"]) == (13, 12, 1)
    assert "broken.png" in ran.err
    again = sdft("cache-latents", "config.toml", "--json")
    assert (again.result["encoded"], again.result["reused"]) == (0, 12)


def test_an_edited_picture_is_encoded_again_and_no_other(sdft, config, tmp_path):
    assert sdft("cache-latents", "config.toml", "--json").result["encoded"] == 12
    first, second, *_ = sorted((tmp_path / "images").glob("*.png"))
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=(1, 1))
    ran = sdft("cache-latents", "config.toml", "--json")
    assert ran.result["encoded"] + ran.result["reused"] == 12
    assert ran.result["encoded"] <= 1


def test_a_model_that_is_not_there_is_named(sdft, config):
    ran = sdft("train", "config.toml", "--pretrained_model_name_or_path", "nowhere.safetensors")
    assert ran.code == 2
    assert "nowhere.safetensors" in ran.err


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_model_file_that_is_none_is_named(sdft, config, suffix):
    Path(f"model{suffix}").write_text("not a model " * 100)
    ran = sdft("train", "config.toml", "--pretrained_model_name_or_path", f"model{suffix}")
    assert ran.code == 4
    assert f"model{suffix}" in ran.err


def test_a_folder_that_is_no_model_is_named(sdft, config):
    Path("folder").mkdir()
    ran = sdft("train", "config.toml", "--pretrained_model_name_or_path", "folder")
    assert ran.code == 4
    assert "folder" in ran.err


class RunsCode:
    """Pickles as a call: unpickling it without care makes a file."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("form", ["zip", "plain"])
def test_a_pickle_that_runs_code_is_refused_and_nothing_is_run(sdft, config, form):
    content = pickle.dumps({"state_dict": RunsCode()}, protocol=2)
    if form == "zip":
        with zipfile.ZipFile("evil.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
    else:
        Path("evil.ckpt").write_bytes(content)
    ran = sdft("train", "config.toml", "--pretrained_model_name_or_path", "evil.ckpt")
    assert ran.code == 4
    assert "evil.ckpt" in ran.err
    assert not Path("pwned").exists()


def test_an_output_folder_that_cannot_be_written_is_named(sdft, config):
    Path("file").write_text("")
    ran = sdft("train", "config.toml", "--output_dir", "file/out")
    assert ran.code == 3
    assert "file" in ran.err


def test_a_missing_model_for_samples_is_named(sdft):
    ran = sdft("sample", "nowhere.safetensors", "--prompt", "a cat")
    assert ran.code in (2, 4)
    assert "nowhere.safetensors" in ran.err


def test_a_side_that_no_latent_has_is_answered_by_the_nearest(sdft, toy_model):
    ran = sdft("sample", toy_model, "--prompt", "a cat", "--width", "100")
    assert ran.code == 2
    assert "--width" in ran.err
    assert "use 96 or 104" in ran.err
