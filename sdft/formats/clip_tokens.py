"""CLIP's tokenizer, from the vocabulary that ships in the package.

In: a caption. Out: token numbers, or chunks of 77 ready for the text encoder.
It gives the numbers that transformers' CLIPTokenizer gives. SD 1.x and 2.x use the same
vocabulary and differ in what fills a short chunk.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY_SIZE = 49408
"""256 bytes, the same 256 at the end of a word, 48,894 merges, start and end."""
BOS_TOKEN = "<|startoftext|>"
EOS_TOKEN = "<|endoftext|>"
BOS_ID = 49406
EOS_ID = 49407

CHUNK_TOKENS = 77
"""Positions of the text encoder. Source: context_length of OpenAI's CLIP."""
CHUNK_WORDS = 75
"""A chunk without its start and its end."""

MAX_TOKEN_LENGTHS = (75, 150, 225)
PADDINGS = ("eos", "zero")

_WORD_PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""What counts as one word. Source: simple_tokenizer.py of OpenAI's CLIP."""


class ClipTokenizer:
    """Splits captions into CLIP's tokens. Can be pickled; holds no file open."""

    def __init__(self, family_padding: str) -> None:
        assert family_padding in PADDINGS, family_padding
        self.padding = family_padding
        self.bos_id = BOS_ID
        self.eos_id = EOS_ID
        self.pad_id = EOS_ID if family_padding == "eos" else 0

    def encode(self, text: str) -> list[int]:
        """Return all tokens of a caption, without start and end, and not cut."""
        ids: list[int] = _backend().encode(text, add_special_tokens=False).ids
        return ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Return all tokens of a caption, and where in it the text of each begins."""
        encoding = _backend().encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def count(self, text: str) -> int:
        """Return how many tokens the caption has, without start and end."""
        return len(self.encode(text))

    def chunks(self, text: str, max_token_length: int) -> list[list[int]]:
        """Return the caption as chunks of 77 tokens, always as many as `max_token_length` has.

        What is longer is cut. Each chunk is a start, up to 75 tokens, an end, and padding.
        """
        assert max_token_length in MAX_TOKEN_LENGTHS, max_token_length
        words = self.encode(text)[:max_token_length]
        return [
            self._chunk(words[first : first + CHUNK_WORDS])
            for first in range(0, max_token_length, CHUNK_WORDS)
        ]

    def _chunk(self, words: list[int]) -> list[int]:
        ids = [BOS_ID, *words, EOS_ID]
        return ids + [self.pad_id] * (CHUNK_TOKENS - len(ids))


def write_tokenizer_files(folder: Path, family_padding: str) -> None:
    """Write the tokenizer of a diffusers folder, in the form that old and new programs read."""
    folder.mkdir(parents=True, exist_ok=True)
    pad_token = EOS_TOKEN if family_padding == "eos" else "!"
    # Compact and unescaped, as the published files are.
    vocabulary = json.dumps(_vocabulary(), ensure_ascii=False, separators=(",", ":"))
    _write(folder / "vocab.json", vocabulary)
    _write(folder / "merges.txt", "#version: 0.2\n" + "\n".join(_merges()) + "\n")
    special = {
        "bos_token": _special_token(BOS_TOKEN),
        "eos_token": _special_token(EOS_TOKEN),
        "pad_token": pad_token,
        "unk_token": _special_token(EOS_TOKEN),
    }
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2) + "\n")
    config = {
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken", **_special_token(BOS_TOKEN)},
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", **_special_token(EOS_TOKEN)},
        "errors": "replace",
        "model_max_length": CHUNK_TOKENS,
        "pad_token": pad_token,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", **_special_token(EOS_TOKEN)},
    }
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def _special_token(content: str) -> dict[str, object]:
    return {
        "content": content,
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


@cache
def _merges() -> tuple[str, ...]:
    packed = files("sdft.formats").joinpath("clip", "merges.txt.gz").read_bytes()
    return tuple(gzip.decompress(packed).decode("utf-8").split("\n")[:-1])


def _byte_characters() -> Iterable[str]:
    """Yield the printable character that stands for each byte, in the vocabulary's order.

    Bytes that print stand for themselves and come first; the other ones follow as U+0100 and on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    yield from map(chr, printable)
    for number in range(256 - len(printable)):
        yield chr(256 + number)


@cache
def _vocabulary() -> dict[str, int]:
    singles = list(_byte_characters())
    words = [
        *singles,
        *(character + "</w>" for character in singles),
        *(merge.replace(" ", "") for merge in _merges()),
        BOS_TOKEN,
        EOS_TOKEN,
    ]
    numbers = {word: number for number, word in enumerate(words)}
    assert len(numbers) == VOCABULARY_SIZE
    return numbers


@cache
def _backend() -> Tokenizer:
    # Takes 30 ms to import and 150 ms to build; --help must not pay for it.
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(
        models.BPE(
            vocab=_vocabulary(),
            merges=[(left, right) for left, right in map(str.split, _merges())],
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=EOS_TOKEN,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.add_special_tokens([AddedToken(BOS_TOKEN), AddedToken(EOS_TOKEN)])
    return backend
