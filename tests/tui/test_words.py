"""One catalogue, the same names and places in every language."""

from __future__ import annotations

import re
import string
import tomllib
from pathlib import Path

import pytest
from rich.cells import cell_len

import sdft
from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.preset import PRESETS
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.control import COMMANDS
from sdft.language import LANGUAGES, Words, catalogue, language_of
from sdft.tui.panes.images import Chosen
from sdft.tui.panes.training import folded_groups
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.run import RunScreen
from sdft.tui.screens.steering import Steering
from sdft.tui.screens.watch import TABS, WatchScreen
from sdft.tui.screens.wizard import STEPS, WizardScreen, pane_class
from sdft.tui.shell import Shell
from sdft.tui.viewing import CHARTS
from sdft.tui.widgets.folder_tree import FolderTree
from sdft.views.run_state import STATES

FOLDER = Path(sdft.__file__).parent / "strings"


def places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_names_with_the_same_places(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert english.keys() == other.keys()
    for name in english:
        assert places(english[name]) == places(other[name]), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_key_part_state_and_curve_has_words(language: str) -> None:
    words = Words(language)
    panes = [*map(pane_class, STEPS), Chosen, FolderTree]
    for kind in (Shell, Steering, WatchScreen, WizardScreen, MendScreen, RunScreen, *panes):
        for binding in kind.BINDINGS:
            if binding.description:
                assert binding.description in words, binding
    groups = [name.replace(" ", "_") for name in folded_groups()]
    wizard = ((STEPS, "step"), (PRESETS, "preset"), (groups, "group"))
    for names, group in ((STATES, "state"), (TABS, "tab"), (CHARTS, "curve"), *wizard):
        assert all(f"{group}.{name}" in words for name in names)
    for name in COMMANDS.keys() - {"set"}:
        assert f"ask.{name}" in words
    for name in catalogue(language):
        if name.startswith("help."):
            assert f"part.{name.removeprefix('help.')}" in words


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_fits_a_terminal_of_80_columns(language: str) -> None:
    for name, sentence in catalogue(language).items():
        if name.startswith("help."):
            assert max(map(cell_len, sentence.splitlines())) <= 66, name
            assert len(sentence.strip().splitlines()) <= 14, name


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "SDFT_LANG": "en"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "C", "LANG": "ja_JP"}, "en"),
        ({"SDFT_LANG": "JA"}, "ja"),
    ],
)
def test_the_language_is_the_asked_one_then_the_locales(
    environment: dict[str, str], expected: str
) -> None:
    assert language_of(environment) == expected


def test_every_setting_has_its_help_in_japanese_and_no_other_has() -> None:
    declared = {
        setting.name
        for model in (TrainingSettings, DatasetSettings, SubsetSettings)
        for setting in settings_of(model)
    }
    hints = tomllib.loads((FOLDER / "hints.ja.toml").read_text(encoding="utf-8"))
    assert hints.keys() == declared
    assert all(re.search("[\u3040-\u30ff\u4e00-\u9fff]", hint) for hint in hints.values())
    assert Words("ja").hint("batch_size", "Images in a batch.") == hints["batch_size"]
    assert Words("en").hint("batch_size", "Images in a batch.") == "Images in a batch."
