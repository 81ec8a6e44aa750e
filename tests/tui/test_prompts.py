"""The wizard as plain lines writes the files that the screens write."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sdft.errors import UserError
from sdft.language import Words
from sdft.tui.draft import History
from sdft.tui.draft_values import with_preset, with_setting
from sdft.tui.folder_look import look_at, with_folder
from sdft.tui.keeping import Keeping
from sdft.tui.project import opened
from sdft.tui.prompts import ask_all
from tests.tui.terminal import python
from tests.tui.wizarding import project, toml


def answered(folder: Path, answers: list[str]) -> list[str]:
    said: list[str] = []
    left = iter(answers)

    def ask(question: str) -> str:
        said.append(question)
        try:
            return next(left)
        except StopIteration:
            raise UserError(what="no more answers") from None

    keeping = Keeping(folder.parent / "state")
    ask_all(None, folder, Words("en"), ask=ask, say=said.append, keeping=keeping)
    assert list(left) == []
    return said


def test_the_questions_write_what_the_same_edits_on_the_screens_write(tmp_path: Path) -> None:
    folder, other = project(tmp_path / "a" / "cats"), project(tmp_path / "b" / "cats")
    said = answered(
        folder,
        ["other.safetensors", "small-dataset", "images", "", "", "64", "3", "1e-5", "out", "", "n"],
    )
    assert any(line.startswith("Start it later with: sdft train config.toml") for line in said)
    assert "images: 4" in said

    draft = with_setting(opened(None, other), "pretrained_model_name_or_path", "other.safetensors")
    draft = with_preset(draft, "small-dataset")
    *_, counts = look_at(other / "images")
    draft = with_folder(draft, counts)
    for name, typed in (
        ("resolution", "64"), ("max_train_epochs", "3"), ("learning_rate", "1e-5"),
        ("output_dir", "out"),
    ):  # fmt: skip
        draft = with_setting(draft, name, typed)
    History(draft).now.saved()
    for name in ("dataset.toml", "config.toml"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_a_wrong_answer_is_asked_again_with_the_reason(tmp_path: Path) -> None:
    folder = project(tmp_path / "cats")
    said = answered(
        folder,
        ["nowhere.safetensors", "other.safetensors", "12gb", "", "nowhere", "images", "", "", "",
         "", "fast", "1e-5", "", "", "n"],
    )  # fmt: skip
    problems = [line for line in said if line.startswith("Not right")]
    assert len(problems) == 4
    assert toml(folder / "config.toml")["learning_rate"] == 1e-5


def test_a_file_that_is_there_keeps_its_comments(tmp_path: Path) -> None:
    folder = project(tmp_path / "cats")
    text = "# mine\r\n[[datasets]]\r\nresolution = 512 # px\r\n\r\n[[datasets.subsets]]\r\n"
    text += "image_dir = 'images'\r\ncaption_extension = '.txt'\r\n"
    (folder / "dataset.toml").write_bytes(text.encode())
    answered(folder, ["other.safetensors", "", "", "", "", "", "", "", "", "n"])
    assert (folder / "dataset.toml").read_bytes() == text.encode()


@pytest.mark.parametrize("language", ["en", "ja"])
def test_without_a_terminal_the_questions_come_by_themselves(tmp_path: Path, language: str) -> None:
    folder = project(tmp_path / "cats")
    answers = ["other.safetensors", "", "images", "", "", "", "", "", "", "", "n"]
    environment = os.environ | {
        "SDFT_LANG": language, "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    done = subprocess.run(
        python("-m", "sdft", "wizard"), cwd=folder, input="\n".join(answers) + "\n",
        capture_output=True, encoding="utf-8", env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert toml(folder / "dataset.toml")["datasets"][0]["subsets"] == [{"image_dir": "images"}]
    assert "sdft train config.toml" in done.stdout


def test_answers_that_end_early_write_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path / "cats")
    with pytest.raises(UserError):
        answered(folder, ["other.safetensors"])
    assert not (folder / "config.toml").exists()
