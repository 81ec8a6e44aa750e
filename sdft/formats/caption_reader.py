"""From a caption to what the text encoder is given: chunks of token numbers, and their weights.

In: a caption and how it is to be read. Out: a ReadCaption, which also knows what was cut off.
Shapes: K chunks, S = 77 tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdft.formats.clip_tokens import CHUNK_TOKENS, CHUNK_WORDS, MAX_TOKEN_LENGTHS, ClipTokenizer
from sdft.formats.weighted_words import WeightedText, parse_weights

COMMA_ID = 267
"""CLIP's token for a comma that ends a word."""

COMMA_REACH = 20
"""A chunk ends at a comma only if so many of its last tokens hold one.

Source: the web UI's default of "comma padding backtrack"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCaption:
    """What the text encoder is given of one caption."""

    ids_KS: list[list[int]]
    weights_KS: list[list[float]] | None
    """One number a token; none where weights are not read."""
    num_tokens: int
    """Of the whole caption, without starts and ends, cut or not."""
    num_cut: int
    """How many of them the model does not read."""
    cut_text: str
    """The end of the caption that is not read."""


@dataclass(frozen=True, slots=True)
class _Token:
    id: int
    weight: float
    start: int
    """Of its text in the caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionReader:
    """Reads captions in one way. Can be pickled; holds no file open."""

    tokenizer: ClipTokenizer
    max_token_length: int = 75
    """75, 150 or 225: one, two or three chunks."""
    weighted: bool = False
    """Brackets are weights, as in `weighted_words`, instead of text."""
    cut_at_commas: bool = False
    """A full chunk ends behind a comma near its end, so that no tag lies in two chunks."""

    def read(self, caption: str) -> ReadCaption:
        """Return the caption's chunks, always as many as `max_token_length` has."""
        assert self.max_token_length in MAX_TOKEN_LENGTHS, self.max_token_length
        tokens = self._tokens(caption)
        num_chunks = self.max_token_length // CHUNK_WORDS
        chunks = self._chunks(tokens, num_chunks)
        kept, cut = chunks[:num_chunks], [one for chunk in chunks[num_chunks:] for one in chunk]
        kept += [[]] * (num_chunks - len(kept))
        return ReadCaption(
            ids_KS=[self._filled([one.id for one in chunk]) for chunk in kept],
            weights_KS=[_weights(chunk) for chunk in kept] if self.weighted else None,
            num_tokens=len(tokens),
            num_cut=len(cut),
            cut_text=caption[cut[0].start :] if cut else "",
        )

    def _tokens(self, caption: str) -> list[_Token]:
        whole = [WeightedText(caption, 1.0, 0)]
        tokens = []
        for part in parse_weights(caption) if self.weighted else whole:
            ids, starts = self.tokenizer.encode_with_starts(part.text)
            # An escaped bracket makes the text shorter than its place, by a character: near enough.
            tokens += [
                _Token(token_id, part.weight, part.start + start)
                for token_id, start in zip(ids, starts, strict=True)
            ]
        return tokens

    def _chunks(self, tokens: list[_Token], num_read: int) -> list[list[_Token]]:
        """Cut tokens into chunks of up to 75; the last that is read is filled in any case."""
        chunks: list[list[_Token]] = []
        start = 0
        while start < len(tokens):
            stop = min(start + CHUNK_WORDS, len(tokens))
            goes_on = len(chunks) + 1 < num_read and stop < len(tokens)
            if self.cut_at_commas and goes_on and tokens[stop].id != COMMA_ID:
                nearest = range(stop - 1, stop - 1 - COMMA_REACH, -1)
                stop = next((at + 1 for at in nearest if tokens[at].id == COMMA_ID), stop)
            chunks.append(tokens[start:stop])
            start = stop
        return chunks

    def _filled(self, ids: list[int]) -> list[int]:
        start_and_end = [self.tokenizer.bos_id, *ids, self.tokenizer.eos_id]
        return start_and_end + [self.tokenizer.pad_id] * (CHUNK_TOKENS - len(start_and_end))


def _weights(chunk: list[_Token]) -> list[float]:
    """Return the weights of a whole chunk: start, end and padding weigh 1."""
    weights = [1.0, *(one.weight for one in chunk)]
    return weights + [1.0] * (CHUNK_TOKENS - len(weights))
