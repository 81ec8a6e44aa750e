"""The command lines of sd-scripts' guides train the toy model, on a CPU, as they stand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from sdft.cli.app import run
from sdft.formats.script_lines import KINDS, read_commands
from tests.toy_pictures import write_pictures
from tests.toy_project import save_as_single_file

LINES = Path(__file__).parents[1] / "golden" / "command_lines"


def words_of(script: Path) -> list[str]:
    """Return the words behind fine_tune.py."""
    commands = read_commands(script.read_text("utf-8"), KINDS[script.suffix])
    (words,) = [one.words for one in commands if "fine_tune.py" in one.words]
    return list(words[words.index("fine_tune.py") + 1 :])


@pytest.fixture(scope="module")
def home(prepared: Path, module_folder: Callable[[str], Path]) -> Path:
    """A folder with everything that the lines name."""
    from tests.toy_model import save_toy_model

    folder = module_folder("lines")
    shutil.copytree(prepared / "model", folder / "model")
    shutil.copy(prepared / "model.safetensors", folder)
    # Named .ckpt and holding safetensors: what counts is the content, as with renamed downloads.
    save_as_single_file(folder / "model", folder / "model.ckpt")
    save_toy_model(folder / "model-v", seed=3, family="sd2-v")
    write_pictures(folder / "images", 3, side_px=128, seed=1)
    stems = [path.stem for path in (folder / "images").glob("*.[pj][np]g")]
    keys = {stem: {"caption": "a shape", "tags": "red, big, round"} for stem in stems}
    (folder / "meta.json").write_text(json.dumps(keys), "utf-8")
    (folder / "dataset.toml").write_text(
        "[general]\nenable_bucket = true\nmin_bucket_reso = 64\n[[datasets]]\n"
        "resolution = 128\n[[datasets.subsets]]\nimage_dir = 'images'\n"
        "caption_extension = '.txt'\n",
        "utf-8",
    )
    return folder


FALLBACKS = {
    "dataset_config": {"mixed_precision": "no"},
    "full_fp16": {"mixed_precision": "no", "full_fp16": False},
}
"""What a CPU has to choose otherwise, by the script's name; nothing anywhere else."""


@pytest.mark.parametrize("script", sorted(LINES.iterdir()), ids=lambda path: path.name)
def test_a_line_of_the_guides_trains_as_it_stands(home, monkeypatch, capsys, script):
    monkeypatch.chdir(home)
    AcceleratorState._reset_state(reset_partial_state=True)
    name = script.stem
    code = run(["train", *words_of(script), "--max_train_steps=1", "--device=cpu", "--overwrite"])
    AcceleratorState._reset_state(reset_partial_state=True)
    said = capsys.readouterr()
    assert code == 0, said.err
    lines = (home / "out" / f"{name}.run" / "events.jsonl").read_text("ascii").splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["step"] for event in events if event["event"] == "StepDone"] == [1]
    chosen = {
        event["name"]: event["value"] for event in events if event["event"] == "SettingChosen"
    }
    wanted = FALLBACKS.get(name, {})
    assert {key: chosen.get(key) for key in wanted} == wanted
    assert {"mixed_precision", "full_fp16"} & chosen.keys() == wanted.keys()
    for event in events:
        words = event.get("reason") or event.get("message") or ""
        assert "\n" not in words
    if "--xformers" in words_of(script):
        # Said once, with what is used instead.
        told = [event for event in events if event.get("topic") == "attention"]
        assert len(told) == 1
        assert "scaled_dot_product_attention" in told[0]["message"]
    # Only that of the line that failed is looked at; all of them take 400 MB.
    shutil.rmtree(home / "out")


def test_one_line_in_three_scripts_is_one_config(home, monkeypatch):
    from sdft.cli.settings_line import read_or_help
    from sdft.cli.train import PAGE

    monkeypatch.chdir(home)
    scripts = sorted(LINES.glob("dataset_config.*"))
    assert len(scripts) == 3
    configs = [read_or_help(PAGE, words_of(script)).load() for script in scripts]
    assert configs[0] == configs[1] == configs[2]
