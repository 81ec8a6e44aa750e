"""The words of one use follow the rules, and their randomness is what was asked for."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdft.dataset.captions import (
    caption_stems,
    expand_wildcards,
    raw_caption,
    warmup_steps,
    words_of,
)
from sdft.dataset.records import WordRules
from sdft.errors import DataError
from sdft.streams import Address, stream
from sdft.train.sampler import Group, Order, micro_batches


def at(epoch: int = 1, key: str = "a.png", **other: int) -> Address:
    return Address(
        **({"seed": 3, "dataset": 0, "subset": 0, "repeat": 0} | other), epoch=epoch, key=key
    )


def words(caption: str, address: Address | None = None, step: int = 0, **rules: object) -> str:
    return words_of(caption, WordRules(**rules), address or at(), step, 100)


CASES = [
    ("a girl,1girl, stage", {}, "a girl,1girl, stage"),
    ("  spaced , tags ", {}, "  spaced , tags "),
    ("", {}, ""),
    ("first\nsecond", {}, "first"),
    ("cat", {"caption_prefix": "photo of"}, "photo of cat"),
    ("cat", {"caption_suffix": "on a mat"}, "cat on a mat"),
    ("cat", {"caption_prefix": "a", "caption_suffix": "b"}, "a cat b"),
    ("cat", {"caption_dropout_rate": 1.0, "caption_prefix": "a"}, ""),
    ("cat", {"caption_dropout_every_n_epochs": 1}, ""),
    ("cat", {"caption_dropout_every_n_epochs": 2}, "cat"),
    ("{{x}} {y}", {"enable_wildcard": True}, "{x} y"),
    ("{a|b}", {"enable_wildcard": False}, "{a|b}"),
    ("1,2,3", {"shuffle_caption": True, "keep_tokens": 3}, "1, 2, 3"),
    ("1,2, ,3,", {"shuffle_caption": True, "keep_tokens": 9}, "1, 2, 3"),
    ("1,2,3", {"caption_tag_dropout_rate": 1.0, "keep_tokens": 1}, "1"),
    ("1,2,3", {"caption_tag_dropout_rate": 1.0}, ""),
    ("x|y", {"caption_tag_dropout_rate": 1.0, "caption_separator": "|", "keep_tokens": 2}, "x, y"),
    # The mark never stays in the words, whether tags are shuffled or not.
    ("a, b ||| c", {"keep_tokens_separator": "|||"}, "a, b, c"),
    ("a ||| b, c ||| d", {"keep_tokens_separator": "|||"}, "a, b, c, d"),
    ("a ||| b ||| c ||| d", {"keep_tokens_separator": "|||"}, "a, b, c, d"),
    ("|||b", {"keep_tokens_separator": "|||"}, "b"),
    ("a,b", {"keep_tokens_separator": "|||"}, "a,b"),
    ("a ||| b, c ||| d", {"keep_tokens_separator": "|||", "caption_tag_dropout_rate": 1.0}, "a, d"),
    # The mark goes before keep_tokens.
    (
        "a ||| b",
        {"keep_tokens_separator": "|||", "keep_tokens": 5, "caption_tag_dropout_rate": 1.0},
        "a",
    ),
    ("b", {"caption_prefix": "a |||", "keep_tokens_separator": "|||"}, "a, b"),
    # Tags of the prefix count for keep_tokens.
    ("b, c", {"caption_prefix": "a,", "keep_tokens": 2, "caption_tag_dropout_rate": 1.0}, "a, b"),
    ("a;;b, c", {"secondary_separator": ";;"}, "a,b, c"),
    (
        "a;;b, c",
        {"secondary_separator": ";;", "shuffle_caption": True, "keep_tokens": 2},
        "a,b, c",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("caption", "rules", "expected"), CASES)
def test_a_rule_gives_these_words(caption, rules, expected):
    assert words(caption, **rules) == expected


def test_the_warm_up_lets_in_three_of_eleven_tags_at_step_ten_of_fifty():
    caption = ",".join("abcdefghijk")
    assert words(caption, step=10, token_warmup_step=50) == "a, b, c"
    assert words(caption, step=10, token_warmup_step=0.5) == "a, b, c"
    assert words(caption, step=0, token_warmup_step=50, token_warmup_min=2) == "a, b"
    assert words(caption, step=50, token_warmup_step=50) == ", ".join("abcdefghijk")
    assert words("a,b", step=0, token_warmup_step=50, token_warmup_min=5) == "a, b"
    assert warmup_steps(WordRules(token_warmup_step=0.25), 1000) == 250


@given(st.integers(0, 40), st.integers(1, 10), st.integers(1, 60))
def test_the_warm_up_never_takes_a_tag_back(num_tags, minimum, steps):
    caption = ",".join(f"t{number}" for number in range(num_tags))
    rules = WordRules(token_warmup_step=steps, token_warmup_min=minimum)
    lengths = [
        len([tag for tag in words_of(caption, rules, at(), step, 1).split(", ") if tag])
        for step in range(steps + 1)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] == min(minimum, num_tags)
    assert lengths[-1] == num_tags


@given(
    st.text(alphabet="ab,|{} \n;", max_size=40),
    st.builds(
        WordRules,
        shuffle_caption=st.booleans(),
        keep_tokens=st.integers(0, 3),
        keep_tokens_separator=st.sampled_from(["", "|||"]),
        enable_wildcard=st.booleans(),
        caption_tag_dropout_rate=st.sampled_from([0.0, 0.5]),
        caption_prefix=st.sampled_from([None, "a ||| b"]),
    ),
)
def test_any_caption_gives_one_line_without_marks(caption, rules):
    text = words_of(caption, rules, at(), 0, 10)
    assert text == words_of(caption, rules, at(), 0, 10)
    assert "\n" not in text
    if rules.keep_tokens_separator:
        # A mark that a wildcard choice would build counts as well: expansion comes first.
        assert "|||" not in text


def chi_square(counts: Counter, expected: dict) -> float:
    total = sum(counts.values())
    assert set(counts) <= set(expected)
    return sum((counts[k] - total * p) ** 2 / (total * p) for k, p in expected.items())


def test_over_epochs_every_order_is_equally_likely():
    orders = Counter(words("a,b,c,d", at(epoch), shuffle_caption=True) for epoch in range(1, 2401))
    expected = {", ".join(order): 1 / 24 for order in permutations("abcd")}
    # 23 degrees of freedom: 49.7 is passed by chance once in a thousand.
    assert chi_square(orders, expected) < 49.7


def test_over_epochs_captions_and_tags_are_dropped_as_often_as_asked():
    dropped = Counter(
        words("a", at(epoch), caption_dropout_rate=0.3) == "" for epoch in range(1, 2001)
    )
    assert chi_square(dropped, {True: 0.3, False: 0.7}) < 10.8
    kept = Counter(words("a,b", at(e), caption_tag_dropout_rate=0.4) for e in range(1, 2001))
    assert chi_square(kept, {"": 0.16, "a": 0.24, "b": 0.24, "a, b": 0.36}) < 16.3


def test_lines_and_wildcards_are_drawn_evenly_and_independently():
    drawn = Counter(
        words("{x|y} one\n{x|y} two", at(epoch), enable_wildcard=True) for epoch in range(1, 2001)
    )
    expected = dict.fromkeys(["x one", "y one", "x two", "y two"], 0.25)
    assert chi_square(drawn, expected) < 16.3


def test_a_caption_is_dropped_every_n_epochs_counted_from_one():
    read = [words("a", at(epoch), caption_dropout_every_n_epochs=3) for epoch in range(1, 8)]
    assert read == ["a", "a", "", "a", "a", "", "a"]


@pytest.mark.parametrize(
    "other", [{"repeat": 1}, {"dataset": 1}, {"subset": 1}, {"key": "b.png"}, {"seed": 4}]
)
def test_uses_that_differ_in_one_part_of_the_address_draw_different_words(other):
    caption = ",".join("abcdefghijklmnop")
    mine = [words(caption, at(epoch), shuffle_caption=True) for epoch in range(1, 6)]
    theirs = [words(caption, at(epoch, **other), shuffle_caption=True) for epoch in range(1, 6)]
    assert not set(mine) & set(theirs)


def test_purposes_draw_from_streams_of_their_own():
    caption = ",".join("abcdefgh")
    plain = words(caption, caption_tag_dropout_rate=0.5)
    shuffled = words(caption, caption_tag_dropout_rate=0.5, shuffle_caption=True)
    assert sorted(plain.split(", ")) == sorted(shuffled.split(", "))


def test_each_line_of_several_gets_prefix_and_suffix():
    rules = {"enable_wildcard": True, "caption_prefix": "p", "caption_suffix": "s"}
    assert {words("one\ntwo", at(e), **rules) for e in range(1, 20)} == {"p one s", "p two s"}


def test_wildcards_do_not_nest_and_empty_braces_stay():
    assert expand_wildcards("{} {a", stream(1)) == "{} {a"
    assert expand_wildcards("{{a|b}}", stream(1)) == "{a|b}"
    assert expand_wildcards("{only}", stream(1)) == "only"


def test_a_caption_file_gives_its_first_line_or_all():
    content = "\ufeff\r\n one \r\n\r\ntwo\x85x\nthree".encode()
    assert raw_caption(content, all_lines=False) == ("one", 2)
    assert raw_caption(content, all_lines=True) == ("one\ntwo\x85x\nthree", 0)
    assert raw_caption(b"", all_lines=False) == ("", 0)
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 0\)"):
        raw_caption("日本".encode("cp932"), all_lines=False)


def test_face_coordinates_at_the_end_of_a_stem_may_be_missing_from_the_caption_file():
    assert caption_stems("girl_10_20_64_64") == ("girl_10_20_64_64", "girl")
    assert caption_stems("a_b_10_20_64_64") == ("a_b_10_20_64_64", "a_b")
    assert caption_stems("10_20_64_64") == ("10_20_64_64",)


def test_no_two_ranks_or_items_of_an_epoch_repeat_each_other():
    """Every rank takes its share of one order, so what differs between them is the items."""
    group = Group(dataset=0, bucket=(512, 512), placements=range(24), repeats=[2] * 24)
    order = Order(groups=[group], effective_batch=[8], seed=3)
    read = {0: [], 1: []}
    caption = ",".join("abcdefghijklmnop")
    for step in order.epoch(1):
        for rank, texts in read.items():
            for share in micro_batches(step, batch_size=4, rank=rank, num_processes=2):
                for use in share:
                    address = at(key=f"{use.placement}.png", repeat=use.repeat)
                    texts.append(words(caption, address, shuffle_caption=True))
    assert len(read[0]) == len(read[1]) == 24
    assert len(set(read[0] + read[1])) == 48
