"""Contexts are kept where the words are finite and fit the budget, and encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdft.cache.keys import TextRecipe
from sdft.cache.store import TensorStore
from sdft.cache.text import (
    EncodeTexts,
    cache_contexts,
    context_size_bytes,
    plan_text_cache,
    possible_words,
)
from sdft.dataset.captions import words_of
from sdft.dataset.records import WordRules
from sdft.errors import DataError
from sdft.streams import Address

RECIPE = TextRecipe(
    encoder_digest="toy",
    encoder_dtype="fp32",
    clip_skip=None,
    max_token_length=75,
    weighted=False,
    padding="eos",
    dtype="fp32",
)


@pytest.mark.parametrize(
    ("caption", "rules", "words"),
    [
        ("a cat, red", WordRules(), {"a cat, red"}),
        ("a cat", WordRules(caption_prefix="photo of", caption_suffix="!"), {"photo of a cat !"}),
        ("a cat", WordRules(caption_dropout_rate=0.1), {"a cat", ""}),
        ("a cat", WordRules(caption_dropout_every_n_epochs=2), {"a cat", ""}),
        ("a cat\na dog", WordRules(enable_wildcard=True), {"a cat", "a dog"}),
        ("a;cat ,b", WordRules(secondary_separator=";"), {"a,cat ,b"}),
        ("a,  b", WordRules(shuffle_caption=True, keep_tokens=1), {"a, b"}),
    ],
)
def test_words_without_chance_are_all_known(
    caption: str, rules: WordRules, words: set[str]
) -> None:
    assert possible_words(caption, rules) == words
    for epoch in range(1, 9):
        address = Address(seed=1, epoch=epoch, dataset=0, subset=0, key="a.png", repeat=0)
        assert words_of(caption, rules, address, 0, 100) in words


@pytest.mark.parametrize(
    ("caption", "rules"),
    [
        ("a, b", WordRules(shuffle_caption=True)),
        ("a, b", WordRules(caption_tag_dropout_rate=0.1)),
        ("a, b", WordRules(token_warmup_step=10)),
        ("a {b|c}", WordRules(enable_wildcard=True)),
        ("a", WordRules(shuffle_caption=True, caption_prefix="x, y")),
    ],
)
def test_words_that_chance_makes_have_no_end(caption: str, rules: WordRules) -> None:
    assert possible_words(caption, rules) is None


def test_a_context_has_the_size_that_is_foreseen() -> None:
    assert context_size_bytes(768, 75, "fp16") == 77 * 768 * 2
    assert context_size_bytes(768, 225, "fp16") == 227 * 768 * 2
    assert context_size_bytes(1024, 75, "fp32") == 77 * 1024 * 4


def test_contexts_are_kept_only_within_the_budget() -> None:
    captions = [("a cat", WordRules()), ("a dog", WordRules()), ("a cat", WordRules())]
    size = 2 * 77 * 768 * 2

    def plan(budget_bytes: int) -> tuple[bool, int]:
        made = plan_text_cache(
            captions, text_width=768, max_token_length=75, dtype="fp16", budget_bytes=budget_bytes
        )
        return made.is_used, made.num_bytes

    assert plan(size) == (True, size)
    assert plan(size - 1) == (False, size)
    endless = [*captions, ("a, b", WordRules(shuffle_caption=True))]
    made = plan_text_cache(
        endless, text_width=768, max_token_length=75, dtype="fp16", budget_bytes=10**9
    )
    assert not made.is_used
    assert "chance" in made.reason


class LetterCounts:
    """A context of [2, 3] from the letters of a text; counts what it is asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(list(texts))
        return np.array(
            [[[text.count(letter) for letter in row] for row in ("abc", "dog")] for text in texts],
            dtype=np.float32,
        )


def test_each_text_is_encoded_once_and_found_again(tmp_path: Path) -> None:
    store = TensorStore(tmp_path)
    encoder = LetterCounts()
    texts = ["a cat", "", "a dog", "a cat"]
    first = cache_contexts(
        texts, store=store, recipe=RECIPE, load_encoder=lambda: encoder, batch_size=2
    )
    assert (first.texts, first.encoded, first.reused) == (3, 3, 0)
    assert encoder.batches == [["", "a cat"], ["a dog", "a dog"]]
    np.testing.assert_array_equal(store.read(first.keys["a dog"]), [[1, 0, 0], [1, 1, 1]])

    def must_not_load() -> EncodeTexts:
        raise AssertionError("the text encoder is loaded although nothing is missing")

    second = cache_contexts(texts, store=store, recipe=RECIPE, load_encoder=must_not_load)
    assert (second.encoded, second.reused, second.keys) == (0, 3, first.keys)


def test_another_recipe_encodes_anew(tmp_path: Path) -> None:
    store = TensorStore(tmp_path)
    for clip_skip in (None, 2):
        recipe = replace(RECIPE, clip_skip=clip_skip)
        result = cache_contexts(["a"], store=store, recipe=recipe, load_encoder=LetterCounts)
        assert result.encoded == 1


def test_a_context_that_is_not_finite_stops_with_the_caption(tmp_path: Path) -> None:
    def overflowing(texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), 2, 3), np.inf, dtype=np.float32)

    with pytest.raises(DataError, match='caption "a cat"'):
        cache_contexts(
            ["a cat"],
            store=TensorStore(tmp_path),
            recipe=RECIPE,
            load_encoder=lambda: overflowing,
        )
