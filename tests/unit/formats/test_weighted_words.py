"""Brackets become weights as in the web UI; chunks and weights fit each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdft.formats.caption_reader import COMMA_ID, CaptionReader
from sdft.formats.clip_tokens import BOS_ID, EOS_ID, ClipTokenizer
from sdft.formats.weighted_words import parse_weights

TOKENIZER = ClipTokenizer("eos")

CASES = [
    ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
    ("a [b]", [("a ", 1.0), ("b", 1 / 1.1)]),
    ("(b:1.3)", [("b", 1.3)]),
    ("(b:.5)", [("b", 0.5)]),
    ("(b: 1.2 )", [("b", 1.2)]),
    ("(b:-1)", [("b", -1.0)]),
    ("((b))", [("b", 1.21)]),
    ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3.0), (" c", 1.5)]),
    ("([b])", [("b", 1.0)]),
    (r"\(b\) \[c\] \\", [("(b) [c] \\", 1.0)]),
    (r"(name \(series\):1.2)", [("name (series)", 1.2)]),
    ("(open", [("open", 1.1)]),
    ("[open", [("open", 1 / 1.1)]),
    ("close) also]", [("close) also]", 1.0)]),
    ("b:1.3)", [("b:1.3)", 1.0)]),
    ("[b:1.3]", [("b:1.3", 1 / 1.1)]),
    ("10:30 (a:b)", [("10:30 ", 1.0), ("a:b", 1.1)]),
    ("()", []),
    ("", []),
]


@pytest.mark.parametrize(("caption", "expected"), CASES)
def test_brackets_give_these_weights(caption, expected):
    found = [(part.text, part.weight) for part in parse_weights(caption)]
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@given(st.text(alphabet="ab ,()[]:\\1.", max_size=40))
def test_no_caption_breaks_the_parser_and_no_other_character_is_lost(caption):
    kept = "".join(part.text for part in parse_weights(caption))
    assert [c for c in kept if c in "ab ,"] == [c for c in caption if c in "ab ,"]


@given(st.text(alphabet="ab, ", max_size=300), st.sampled_from([75, 150, 225]))
def test_without_weights_the_chunks_are_the_tokenizers(caption, length):
    plain = CaptionReader(tokenizer=TOKENIZER, max_token_length=length)
    assert plain.read(caption).ids_KS == TOKENIZER.chunks(caption, length)
    weighted = CaptionReader(tokenizer=TOKENIZER, max_token_length=length, weighted=True)
    read = weighted.read(caption)
    assert read.ids_KS == TOKENIZER.chunks(caption, length)
    assert read.weights_KS == [[1.0] * 77] * (length // 75)


def test_each_token_has_the_weight_of_its_words():
    read = CaptionReader(tokenizer=TOKENIZER, weighted=True).read("a (red:1.5) car")
    assert read.ids_KS[0][:5] == [BOS_ID, *TOKENIZER.encode("a red car"), EOS_ID]
    assert read.weights_KS[0][:5] == [1.0, 1.0, 1.5, 1.0, 1.0]
    assert set(read.weights_KS[0][5:]) == {1.0}


def test_weights_follow_their_words_into_the_second_chunk():
    read = CaptionReader(tokenizer=TOKENIZER, max_token_length=150, weighted=True).read(
        "word " * 74 + "(one two:2)"
    )
    assert read.weights_KS[0][75] == 2.0
    assert read.weights_KS[1][1] == 2.0
    assert read.weights_KS[1][0] == read.weights_KS[1][2] == 1.0


def test_what_is_cut_is_counted_and_quoted():
    caption = "one " * 74 + "two three four"
    read = CaptionReader(tokenizer=TOKENIZER).read(caption)
    assert (read.num_tokens, read.num_cut, read.cut_text) == (77, 2, "three four")
    read = CaptionReader(tokenizer=TOKENIZER, max_token_length=150).read(caption)
    assert (read.num_cut, read.cut_text) == (0, "")


def words_of(ids_S):
    return list(ids_S[1 : ids_S.index(EOS_ID)])


def test_a_full_chunk_ends_behind_the_comma_near_its_end():
    reader = CaptionReader(tokenizer=TOKENIZER, max_token_length=150, cut_at_commas=True)
    caption = "x " + "a b c, " * 30
    first, second = reader.read(caption).ids_KS
    assert len(words_of(first)) == 73
    assert words_of(first)[-1] == COMMA_ID
    assert len(words_of(second)) == 48
    assert words_of(first) + words_of(second) == TOKENIZER.encode(caption)


def test_a_comma_too_far_from_the_end_does_not_end_a_chunk():
    reader = CaptionReader(tokenizer=TOKENIZER, max_token_length=150, cut_at_commas=True)
    # 55 tokens, the comma being the last of them, then 20 more: it is just out of reach.
    first, _ = reader.read("a " * 54 + ", " + "b " * 40).ids_KS
    assert len(words_of(first)) == 75
    first, _ = reader.read("a " * 55 + ", " + "b " * 40).ids_KS
    assert len(words_of(first)) == 56


def test_the_last_chunk_that_is_read_is_filled_whatever_its_commas():
    reader = CaptionReader(tokenizer=TOKENIZER, cut_at_commas=True)
    read = reader.read("x " + "a b c, " * 30)
    assert len(words_of(read.ids_KS[0])) == 75
    assert read.num_cut == 121 - 75


def test_a_comma_right_behind_a_full_chunk_opens_the_next_one():
    reader = CaptionReader(tokenizer=TOKENIZER, max_token_length=150, cut_at_commas=True)
    first, second = reader.read("a, " * 36 + "b c d" + ", e").ids_KS
    assert len(words_of(first)) == 75
    assert words_of(second)[0] == COMMA_ID


@given(st.lists(st.sampled_from(["a", "b c", "d,", "e,"]), max_size=120))
def test_cutting_at_commas_loses_no_token_before_the_limit(parts):
    caption = " ".join(parts)
    reader = CaptionReader(tokenizer=TOKENIZER, max_token_length=225, cut_at_commas=True)
    read = reader.read(caption)
    kept = [number for ids_S in read.ids_KS for number in words_of(ids_S)]
    ids = TOKENIZER.encode(caption)
    assert kept == ids[: len(kept)]
    assert len(kept) + read.num_cut == read.num_tokens == len(ids)
