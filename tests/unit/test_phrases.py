"""What declarations of settings say, in Japanese."""

from __future__ import annotations

import re

import pytest

from sdft.config.dataset import SubsetSettings, dataset_settings
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.errors import Problem
from sdft.language import Words

SETTINGS = (*settings_of(TrainingSettings), *settings_of(SubsetSettings), *dataset_settings())
SAME = {"GB", "px"}
"""Units that Japanese writes with the same letters."""
JAPANESE = re.compile("[ぁ-んァ-ヶ一-龠]")
ENGLISH = re.compile(r"\b(a|an|or|and|one|more|less|number|from|to|whole|each|such|as)\b")


def phrases() -> set[str]:
    said = {part for one in SETTINGS for part in (one.unit, one.range, one.wanted) if part}
    assert len(said) > 60
    return said


@pytest.mark.parametrize("phrase", sorted(phrases() - SAME))
def test_every_unit_range_and_kind_of_value_has_a_japanese_phrase(phrase: str) -> None:
    told = Words("ja").phrase(phrase)
    assert JAPANESE.search(told)
    # Names of choices are words of files and stay; everything around them is translated.
    around = re.sub(r"[\w.+-]+(, [\w.+-]+)+", "", told) if phrase.startswith("one of") else told
    assert not ENGLISH.search(around), told


def test_numbers_and_names_stay_in_a_phrase() -> None:
    words = Words("ja")
    assert words.phrase("a whole number, from 1 to 65535") == "整数 (1 から 65535 まで)"
    assert words.phrase("a number, 0 or more and less than 1") == "数 (0 以上 1 未満)"
    assert words.phrase("a list, each entry a number, 0 or more") == "リスト (各要素は数 (0 以上))"
    assert words.phrase("one of l1, l2") == "l1, l2 のいずれか"
    assert words.phrase("never heard of") == "never heard of"
    assert Words("en").phrase("a number, 0 or more") == "a number, 0 or more"


def test_an_error_says_in_japanese_what_is_wanted() -> None:
    values = {"name": "seed", "wanted": "a whole number, 0 or more", "shown": "x"}
    problem = Problem("seed must be a whole number", "config.toml:1", "", "wrong_value", values)
    told = Words("ja").problem(problem)
    assert "整数 (0 以上)" in told.what
