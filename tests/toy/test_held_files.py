"""Whole jobs while every file they change is held for a while, as on Windows: nothing is lost."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from sdft import files
from sdft.cli.app import run as sdft
from sdft.errors import EnvironmentFault
from sdft.events import FileRemoved, StepDone
from sdft.tui.draft import CONFIG, Draft, file_text
from tests.held_files import HeldFiles
from tests.toy.toy_runs import CONSTANT, assert_same_weights, messages
from tests.windows_names import names_windows_refuses

OFTEN = {"rolling_state_steps": 1, "save_every_n_steps": 2, "save_last_n_steps": 1, **CONSTANT}


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if files.PART_MARK in path.name]


def is_step(event, step):
    return isinstance(event, StepDone) and event.step == step


def models_in_use() -> list[str]:
    """Return the model files that this process has open or mapped; shards of a cache are mapped,
    which is why each has a name of its own. What is still being written is not counted."""
    process = psutil.Process()
    names = [file.path for file in process.open_files() if files.PART_MARK not in file.path]
    names += [area.path for area in process.memory_maps()]
    models = [Path(name) for name in names if name.endswith((".safetensors", ".ckpt"))]
    assert models, "not even the shards were seen"
    return [str(path) for path in models if path.parent.name != "shards"]


def test_a_training_writes_all_it_writes_elsewhere(toy, tmp_path, monkeypatch):
    opened = []
    plain = toy(
        "plain",
        max_train_steps=5,
        save_state_on_train_end=True,
        listen=lambda event: opened.extend(models_in_use()) if is_step(event, 3) else None,
        **OFTEN,
    )
    # Others may replace them at any time: a web UI that saves, a person who tidies up.
    assert opened == []
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle --w 64 --h 64 --s 1 --d 1\n", "utf-8")
    held = HeldFiles(monkeypatch, tmp_path, failures=1)
    slow = toy(
        "slow",
        max_train_steps=5,
        cache_dir=str(tmp_path / "cache"),
        sample_prompts=str(prompts),
        sample_every_n_steps=4,
        save_state_on_train_end=True,
        **OFTEN,
    )
    assert slow.error is None
    assert slow.losses == plain.losses
    assert_same_weights(plain.result.checkpoint, slow.result.checkpoint)
    assert left_over(tmp_path) == []
    assert names_windows_refuses(tmp_path) == []

    folder = slow.result.run
    assert {path.name for path in (folder / "states").iterdir()} == {
        path.name for path in (plain.result.run / "states").iterdir()
    }
    assert len(list((folder / "samples").glob("slow_*.png"))) == 1
    kept = {path.name for path in (tmp_path / "out").glob("slow*.safetensors")}
    assert kept == {"slow.safetensors", "slow-step00000004.safetensors"}
    held_at_first = {name.partition(files.PART_MARK)[0] for name in held.names("replace")}
    for name in ("slow.safetensors", "step00000003", "config.toml", "run.json", "fates.jsonl"):
        assert any(name in one for one in held_at_first), name
    assert any(name.endswith(".png") for name in held_at_first)
    assert any(Path(path).parent.name == "shards" for _, path in held.held), "no shard was held"
    assert slow.of(FileRemoved)


def test_what_stays_mapped_is_named_and_neither_replaced_nor_lost(toy, tmp_path, monkeypatch):
    target = tmp_path / "out" / "toy.safetensors"
    first_state = tmp_path / "out" / "toy.run" / "states" / "step00000001"
    held = HeldFiles(monkeypatch, tmp_path, failures=0)
    monkeypatch.setattr(files, "RETRY_FOR_S", 0.2)

    def map_some(event):
        if is_step(event, 2):
            # It is written beside the steps, which may be faster.
            deadline_s = time.monotonic() + 30.0
            while not first_state.is_dir() and time.monotonic() < deadline_s:
                time.sleep(0.01)
            held.mapped |= set(first_state.glob("*.safetensors"))
            assert held.mapped
        if is_step(event, 3):
            target.write_bytes(b"of another program")
            held.mapped.add(target)

    run = toy(max_train_steps=3, listen=map_some, **OFTEN)
    # A state that is too old and cannot be removed ends no training; a result without a name does.
    assert any(str(first_state) in message for message in messages(run, "unfinished"))
    assert isinstance(run.error, EnvironmentFault)
    assert str(target) in str(run.error)
    assert target.read_bytes() == b"of another program"
    kept = tmp_path / "out" / "toy.new-1.safetensors"

    held.mapped.clear()
    resumed = toy(max_train_steps=3, resume="auto", **OFTEN)
    assert resumed.error is None
    assert_same_weights(kept, target)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.caption").write_text(f"a woman, number {number}\n", "utf-8")
    return folder


def test_commands_on_images_and_models_write_all_they_write_elsewhere(
    pictures, prepared, tmp_path, monkeypatch, capsys
):
    shutil.copy(prepared / "model.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    held = HeldFiles(monkeypatch, tmp_path, failures=1)
    lines = [
        "metadata merge images --out meta.json",
        "metadata clean meta.json",
        "metadata undo meta.json",
        "bucket --train_data_dir images --in_json meta.json --resolution 64 --fates fates.jsonl",
        "convert model.safetensors folder",
        "convert model.safetensors folder --overwrite",
        "convert folder back.ckpt",
        "convert folder back.ckpt --overwrite",
        "train --train_data_dir images --resolution 64 --config_file made.toml --output_config",
    ]
    for line in lines:
        assert sdft(line.split()) == 0, (line, capsys.readouterr().err)
    assert left_over(tmp_path) == []
    replaced = {name.partition(files.PART_MARK)[0] for name in held.names("replace")}
    assert {"meta.json", "fates.jsonl", "folder", "back.ckpt", "made.toml"} <= replaced
    assert sdft(["verify", "back.ckpt"]) == 0
    capsys.readouterr()


def test_the_wizards_files_are_written_elsewhere(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf# mine\r\nlearning_rate = 1e-6\r\n")
    held = HeldFiles(monkeypatch, tmp_path, failures=1)
    draft = Draft(config=file_text(path), dataset=None)
    draft.with_value(CONFIG, ("learning_rate",), "2e-6").saved()
    assert path.read_bytes() == b"\xef\xbb\xbf# mine\r\nlearning_rate = 2e-6\r\n"
    assert left_over(tmp_path) == []
    assert any("config.toml" in name for name in held.names("replace"))
