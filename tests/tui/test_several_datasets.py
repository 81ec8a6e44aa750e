"""A dataset file with more than one [[datasets]]: each can be edited, and only it changes."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Select

from sdft.language import Words
from sdft.tui.draft import DATASET, Draft
from sdft.tui.draft_values import (
    check,
    dataset_names,
    image_dirs,
    num_datasets,
    stated,
    with_preset,
    with_setting,
)
from sdft.tui.folder_look import look_at, with_folder
from sdft.tui.keeping import Keeping
from sdft.tui.project import opened
from sdft.tui.prompts import ask_all
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import until
from tests.tui.wizarding import app_for, checked, focus, play, project, shown, type_in, wizard_of

TWO = (
    "# two sizes\n"
    "[general]\n"
    "caption_extension = '.txt'\n"
    "shuffle_caption = true  # for both\n"
    "min_bucket_reso = 32\n"
    "max_bucket_reso = 256\n"
    "bucket_reso_steps = 32\n"
    "\n"
    "[[datasets]]\n"
    "resolution   = 64   # small\n"
    "batch_size = 2\n"
    "\n"
    "  [[datasets.subsets]]\n"
    "  image_dir = 'images'\n"
    "\n"
    "[[datasets]]\n"
    "resolution   = 96   # large\n"
    "\n"
    "  [[datasets.subsets]]\n"
    "  image_dir = 'more'   # mine\n"
    "  num_repeats = 2\n"
    "# the end\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = project(tmp_path / "p")
    (folder / "images").rename(folder / "more")
    project(tmp_path / "q")
    (tmp_path / "q" / "images").rename(folder / "images")
    (folder / "dataset.toml").write_text(TWO, encoding="utf-8", newline="")
    return folder


def draft_in(folder: Path) -> Draft:
    return opened(folder / "dataset.toml", folder)


def changed_lines(draft: Draft) -> list[str]:
    old, new = TWO.splitlines(), draft.file(DATASET).text.splitlines()
    return [line for line in difflib.ndiff(old, new) if line[:1] in "+-"]


def test_the_datasets_are_told_apart_by_size_and_folders(folder: Path) -> None:
    draft = draft_in(folder)
    assert num_datasets(draft) == 2
    assert dataset_names(draft) == ["1: 64 px  images", "2: 96 px  more"]
    assert image_dirs(draft, 1) == ["more"]
    assert stated(draft, "resolution", dataset=1).value == 96
    assert stated(draft, "num_repeats", dataset=1).value == 2


@pytest.mark.parametrize(
    ("name", "typed", "old", "new"),
    [
        ("resolution", "128", "resolution   = 96   # large", "resolution   = 128   # large"),
        ("num_repeats", "5", "  num_repeats = 2", "  num_repeats = 5"),
        ("image_dir", "images", "  image_dir = 'more'   # mine", "  image_dir = 'images'   # mine"),
    ],
)
def test_one_field_changed_in_the_second_dataset_is_one_line_changed(
    folder: Path, name: str, typed: str, old: str, new: str
) -> None:
    text = with_setting(draft_in(folder), name, typed, dataset=1).file(DATASET).text
    if name == "image_dir":
        new = new.replace("'images'", '"images"') if new not in text else new
    assert text == TWO.replace(old, new)


def test_a_new_key_of_the_second_dataset_stands_in_it_and_not_in_general(folder: Path) -> None:
    draft = with_setting(draft_in(folder), "batch_size", "3", dataset=1)
    assert changed_lines(draft) == ["+ batch_size = 3"]
    assert stated(draft, "batch_size", dataset=0).value == 2
    assert stated(draft, "batch_size", dataset=1).value == 3


def test_what_counts_for_all_stays_and_the_one_dataset_says_otherwise(folder: Path) -> None:
    draft = with_setting(draft_in(folder), "shuffle_caption", "false", dataset=1)
    assert changed_lines(draft) == ["+ shuffle_caption = false"]
    assert stated(draft, "shuffle_caption", dataset=0).value is True
    assert stated(draft, "shuffle_caption", dataset=1).value is False
    # Empty takes the dataset's own line out, and then nothing more.
    emptied = with_setting(draft, "shuffle_caption", "", dataset=1)
    assert emptied.file(DATASET).text == TWO
    assert with_setting(emptied, "shuffle_caption", "", dataset=1) == emptied


def test_a_folder_is_added_to_the_chosen_dataset(folder: Path) -> None:
    *_, counts = look_at(folder / "images")
    draft = with_folder(draft_in(folder), counts, dataset=1)
    assert image_dirs(draft, 0) == ["images"]
    assert image_dirs(draft, 1) == ["more", "images"]


def test_a_preset_leaves_what_several_datasets_say(folder: Path) -> None:
    draft = with_preset(draft_in(folder), "small-dataset")
    assert draft.file(DATASET).text == TWO


def test_a_problem_knows_its_dataset(folder: Path) -> None:
    draft = with_setting(draft_in(folder), "resolution", "97.5", dataset=1)
    found = check(draft, folder)
    assert found.problem_of("resolution", 1) is not None
    assert found.problem_of("resolution", 0) is None


def test_the_questions_ask_which_dataset(folder: Path) -> None:
    answers = ["other.safetensors", "", "3", "2", "", "", "128", "", "", "", "", "n"]
    said: list[str] = []
    left = iter(answers)

    def ask(question: str) -> str:
        said.append(question)
        return next(left)

    keeping = Keeping(folder.parent / "state")
    path = folder / "dataset.toml"
    ask_all(path, folder, Words("en"), ask=ask, say=said.append, keeping=keeping)
    assert "- 2: 96 px  more" in said
    assert "Which dataset, 1 to 2 [1]: " in said
    assert path.read_text("utf-8") == TWO.replace("= 96 ", "= 128 ")


def test_a_dataset_is_chosen_by_keys_and_edited(folder: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        await checked(app, pilot)
        field = await focus(app, pilot, "resolution")
        await shown(app, pilot, "1: 64 px")
        await pilot.press("shift+tab")
        await until(pilot, lambda: isinstance(app.focused, Select))
        await pilot.press("enter", "down", "enter")
        await until(pilot, lambda: wizard.dataset == 1)
        await until(pilot, lambda: field.stated.value == 96)
        await pilot.press("tab", "end", "backspace", "backspace")
        await type_in(pilot, "128")
        await shown(app, pilot, "2: 128 px")
        # The choice holds on the other steps.
        await wizard.go_to("images")
        await shown(app, pilot, "Trained on\n.*more")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: not wizard.draft.is_changed)

    play(app_for(folder, Path("dataset.toml")), script)
    assert (folder / "dataset.toml").read_text("utf-8") == TWO.replace("= 96 ", "= 128 ")


def test_one_dataset_leaves_no_choice(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await focus(app, pilot, "resolution")
        assert not app.screen.query("#dataset")

    play(app_for(project(tmp_path / "p")), script)
