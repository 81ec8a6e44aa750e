"""The lines that stand for sd-scripts' other scripts do what those do, one after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from sdft.cli.app import run
from tests.other_scripts import SCRIPTS
from tests.tensor.labelers.onnx_models import WD14_ROWS, save_wd14
from tests.tensor.labelers.tiny_captioners import save_blip, save_git


@pytest.fixture(scope="module")
def home(prepared: Path, module_folder: Callable[[str], Path]) -> Path:
    folder = module_folder("scripts")
    (folder / "IMAGES").mkdir()
    for name, side in (("a", 96), ("b", 128), ("c_c", 160)):
        Image.new("RGB", (side, 128), (side, 40, 200)).save(folder / "IMAGES" / f"{name}.png")
    save_blip(folder / "BLIP")
    save_git(folder / "GIT")
    save_wd14(folder / "TAGGER")
    shutil.copytree(prepared / "model", folder / "MODEL")
    (folder / "DATASET.toml").write_text(
        "[[datasets]]\nresolution = 128\n[[datasets.subsets]]\nimage_dir = 'IMAGES'\n"
        "metadata_file = 'CLEAN.json'\n",
        "utf-8",
    )
    return folder


def words_beside(folder: Path, suffix: str) -> dict[str, str]:
    return {path.stem: path.read_text("utf-8").strip() for path in folder.glob(f"*{suffix}")}


def test_the_whole_way_of_the_scripts_by_the_lines_that_stand_for_them(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    images = home / "IMAGES"

    def do(script: str) -> dict:
        line = SCRIPTS[script][1].split()
        code = run([*line[1:], "--json"])
        printed = capsys.readouterr()
        assert code == 0, (script, printed.err)
        return json.loads(printed.out)

    assert do("finetune/make_captions.py")["labelled"] == 3
    by_blip = words_beside(images, ".caption")
    assert by_blip.keys() == {"a", "b", "c_c"}
    assert do("finetune/make_captions_by_git.py")["labelled"] == 3
    captions = words_beside(images, ".caption")
    assert captions.keys() == by_blip.keys()
    assert captions != by_blip

    assert do("finetune/tag_images_by_wd14_tagger.py")["labelled"] == 3
    tags = words_beside(images, ".txt")
    known = {name.replace("_", " ") if len(name) > 3 else name for name, _ in WD14_ROWS}
    assert {tag for text in tags.values() for tag in text.split(", ")} <= known

    do("finetune/merge_captions_to_metadata.py")
    do("finetune/merge_dd_tags_to_metadata.py")
    merged = json.loads((home / "META.json").read_text("utf-8"))
    assert {Path(key).stem: entry["caption"] for key, entry in merged.items()} == captions
    assert {Path(key).stem: entry["tags"] for key, entry in merged.items()} == tags

    # Words that the cleaning rules are about.
    first = next(iter(merged))
    merged[first] = {"caption": "a woman", "tags": "2girls, blue_hair, red_hair, rating:safe"}
    (home / "META.json").write_text(json.dumps(merged), "utf-8")
    do("finetune/clean_captions_and_tags.py")
    clean = json.loads((home / "CLEAN.json").read_text("utf-8"))
    assert clean[first] == {"caption": "a girl", "tags": "2girls"}

    made = do("finetune/prepare_buckets_latents.py")
    assert (made["images"], made["encoded"], made["rejected"]) == (3, 3, 0)
    made = do("tools/cache_latents.py")
    assert (made["images"], made["rejected"]) == (3, 0)

    do("tools/convert_diffusers20_original_sd.py")
    with safe_open(home / "OUT.safetensors", "pt") as file:
        names = set(file.keys())
        assert file.get_slice("model.diffusion_model.out.2.weight").get_dtype() == "F16"
    assert any(name.startswith("first_stage_model.") for name in names)


def test_every_script_that_prepares_has_a_line():
    assert {name.rpartition("/")[2] for name in SCRIPTS} == {
        "make_captions.py",
        "make_captions_by_git.py",
        "tag_images_by_wd14_tagger.py",
        "merge_captions_to_metadata.py",
        "merge_dd_tags_to_metadata.py",
        "clean_captions_and_tags.py",
        "prepare_buckets_latents.py",
        "convert_diffusers20_original_sd.py",
        "cache_latents.py",
    }
