"""Every error that the code can name is said in Japanese, with its values in their places."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import sdft
from sdft.errors import Problem
from sdft.language import PLACE, Words

PACKAGE = Path(sdft.__file__).parent
MAKERS = re.compile(r"[Pp]roblem|[A-Z]\w*Error|UnknownName")
"""Names of what makes a problem."""

JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def trees() -> Iterator[ast.Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ast.parse(path.read_text("utf-8"))


def template(node: ast.expr) -> str | None:
    """Return a text with `{}` for each value in it, None for what is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(template(part) or PLACE for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = template(left), template(right)
            return None if None in both else "".join(both)
    return None


def said_by(call: ast.Call) -> Iterator[ast.expr]:
    """Give what a problem says and advises, unless it has a key."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if not MAKERS.fullmatch(name):
        return
    named = {one.arg: one.value for one in call.keywords}
    placed = call.args if name.lower() == "problem" else []
    if "key" in named or len(placed) > 3:
        return
    yield from (named[part] for part in ("what", "fix") if part in named)
    yield from (placed[place] for place in (0, 2) if place < len(placed))


def has_words(text: str) -> bool:
    """Tell whether a text is more than names of settings and values."""
    return " " in text and any("_" not in word for word in re.findall(r"[A-Za-z_]{2,}", text))


def sentences_of_the_code() -> set[str]:
    calls = (node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call))
    texts = (template(node) for call in calls for node in said_by(call))
    return {text for text in texts if text and has_words(text)}


def catalogue() -> dict[str, str]:
    return tomllib.loads((PACKAGE / "strings" / "sentences.ja.toml").read_text("utf-8"))


def test_every_sentence_of_an_error_has_a_japanese_one():
    assert sorted(sentences_of_the_code() - catalogue().keys()) == []


def test_no_japanese_sentence_is_left_over():
    texts = {
        template(node)
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
    }
    assert sorted(catalogue().keys() - texts) == []


def test_each_is_japanese_and_has_the_same_values():
    words = Words("ja")
    for english, japanese in catalogue().items():
        assert JAPANESE.search(japanese) or not has_words(english), english
        places = sorted({name for _, name, _, _ in Formatter().parse(japanese) if name is not None})
        count = english.count(PLACE)
        assert places == [str(number) for number in range(count)], english
        values = [f"value-{number}" for number in range(count)]
        sentence = english.replace(PLACE, "\0")
        for value in values:
            sentence = sentence.replace("\0", value, 1)
        assert words.sentence(sentence) == japanese.format(*values), english


def test_an_error_is_said_in_japanese_and_in_english():
    problem = Problem(
        "resolution 64 is below min_bucket_reso 256",
        "d.toml:3",
        "set min_bucket_reso to 64 or less",
    )
    japanese = Words("ja").problem(problem)
    assert (japanese.what, japanese.fix) == (
        "resolution 64 \u304c min_bucket_reso 256 \u3088\u308a\u5c0f\u3055\u3044\u5024\u3067\u3059",
        "min_bucket_reso \u3092 64 \u4ee5\u4e0b\u306b\u3057\u3066\u304f\u3060\u3055\u3044",
    )
    assert Words("en").problem(problem) == problem


@pytest.mark.parametrize(
    "text", ["use it as it is, or do not", "this is no sentence of ours", "cafe: no such thing", ""]
)
def test_other_sentences_stay_as_they_are(text):
    assert Words("ja").sentence(text) == text
