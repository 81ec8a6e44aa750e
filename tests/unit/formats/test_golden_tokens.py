"""Token numbers equal those of an independent tokenizer, for 1.x and 2.x at each length.

How the numbers were made stands in tests/golden/make_token_ids.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft.formats.caption_reader import CaptionReader
from sdft.formats.clip_tokens import ClipTokenizer

ROWS = json.loads(
    (Path(__file__).parents[2] / "golden" / "token_ids.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["caption"][:20] or "empty")
@pytest.mark.parametrize(("family", "padding"), [("sd1", "eos"), ("sd2", "zero")])
def test_the_numbers_are_those_of_an_independent_tokenizer(row, family, padding):
    tokenizer = ClipTokenizer(padding)
    assert tokenizer.encode(row["caption"]) == row["words"]
    for length in (75, 150, 225):
        reader = CaptionReader(tokenizer=tokenizer, max_token_length=length)
        assert reader.read(row["caption"]).ids_KS == row[family][str(length)]
        assert tokenizer.chunks(row["caption"], length) == row[family][str(length)]
