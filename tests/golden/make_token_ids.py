"""Makes token_ids.json: CLIP's token numbers by an implementation that is not ours.

    python -m pip install --target TARGET --no-deps open_clip_torch ftfy regex wcwidth
    PYTHONPATH=TARGET python tests/golden/make_token_ids.py TARGET/open_clip/tokenizer.py

Made with open_clip_torch 3.3.0. The words come from its `SimpleTokenizer`, a pure-Python BPE. The
chunks are made here as sd-scripts makes them: tokenize to the full length with padding, cut into
75s, mend the ends of 2.x.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

BOS, EOS = 49406, 49407

CAPTIONS = [
    "",
    "a photo of a cat",
    "A Photo, of: a CAT!",
    "1girl, solo, long hair, looking at viewer, smile, blue eyes, open mouth, (artist name)",
    "it's the dog's 2nd birthday; we've won $1,000.50",
    "naïve café, Ünïcödé ß",
    "日本語のタグ, 東京",
    "smile 😀 and ❤️",
    "^_^, o_o, >_<, :3",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "  spaces   and\ttabs ",
    ", ".join(f"tag number {number}" for number in range(12)),
    "word " * 75,
    "word " * 76,
    "word " * 150,
    ", ".join(f"tag {number}" for number in range(80)),
]


def chunks(words: list[int], length: int, pad: int) -> list[list[int]]:
    """Tokenize to `length` + 2 with padding and cut into chunks of 77, step by step."""
    ids = [BOS, *words[:length], EOS]
    ids += [pad] * (length + 2 - len(ids))
    if length == 75:
        return [ids]
    found = []
    for start in range(1, length + 1, 75):
        chunk = [ids[0], *ids[start : start + 75], ids[-1]]
        if pad != EOS:
            if chunk[-2] not in (EOS, pad):
                chunk[-1] = EOS
            if chunk[1] == pad:
                chunk[1] = EOS
        found.append(chunk)
    return found


def main(tokenizer_file: Path) -> None:
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", tokenizer_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.SimpleTokenizer()
    rows = []
    for caption in CAPTIONS:
        words = tokenizer.encode(" ".join(caption.split()).lower())
        rows.append(
            {
                "caption": caption,
                "words": words,
                "sd1": {str(n): chunks(words, n, EOS) for n in (75, 150, 225)},
                "sd2": {str(n): chunks(words, n, 0) for n in (75, 150, 225)},
            }
        )
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True)
    # One caption a line, so that a change can be seen.
    path = Path(__file__).with_name("token_ids.json")
    path.write_text(text.replace('},{"caption"', '},\n{"caption"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
