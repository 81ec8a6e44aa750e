"""Contexts of a frozen text encoder, kept where there are few enough words.

In: captions with their rules, a budget. Out: whether to keep contexts, and their keys.
A context is large (118 KB in half precision at 77 tokens of SD 1.x, against 32 KB of latents), and
shuffled captions have no end; then the encoder runs in each step instead. No torch here.

Shapes: B captions, S tokens, D text width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sdft.cache.keys import TextRecipe
from sdft.cache.latent_work import PROGRESS_EVERY_S
from sdft.cache.posterior import fits
from sdft.cache.shard import BYTES_OF, StoredDtype
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.cache.writing import writer_of
from sdft.dataset.captions import split_tags, words_of
from sdft.dataset.records import WordRules
from sdft.errors import DataError
from sdft.events import Emit, StageFinished, StageProgress, StageStarted, ignore
from sdft.streams import Address
from sdft.units import format_bytes

STAGE = "contexts"

TOKENS_PER_CHUNK = 75
"""Words of one CLIP window, its start and end not counted."""

_ANY_USE = Address(seed=0, epoch=1, dataset=0, subset=0, key="", repeat=0)

EncodeTexts = Callable[[Sequence[str]], np.ndarray]
"""Returns [B, S, D] float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCachePlan:
    """Whether contexts are kept, and why."""

    texts: tuple[str, ...]
    """Every text that the model can read, each once, sorted; empty where contexts are not kept."""
    num_bytes: int
    """Of all contexts; 0 where the words have no end."""
    reason: str

    @property
    def is_used(self) -> bool:
        return bool(self.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCacheResult:
    """What a pass did: texts == encoded + reused."""

    texts: int
    encoded: int
    reused: int
    keys: dict[str, str]
    """Where each text's context lies."""
    cache: Path


def possible_words(caption: str, rules: WordRules) -> frozenset[str] | None:
    """Return every text that an item can give over a whole run, or None where chance makes them.

    `caption` is as read from the files.
    """
    if rules.caption_tag_dropout_rate > 0 or rules.token_warmup_step > 0:
        return None
    lines = caption.split("\n") if rules.enable_wildcard else [caption]
    if rules.enable_wildcard and any("{" in line for line in lines):
        return None
    steady = replace(
        rules,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        enable_wildcard=False,
    )
    prefix, suffix = rules.caption_prefix or "", rules.caption_suffix or ""
    if rules.shuffle_caption:
        for line in lines:
            _, flexible, _ = split_tags(f"{prefix} {line} {suffix}", rules)
            if len(flexible) > 1:
                return None
    words = {words_of(line, steady, _ANY_USE, 0, 1) for line in lines}
    if rules.caption_dropout_rate > 0 or rules.caption_dropout_every_n_epochs > 0:
        words.add("")
    return frozenset(words)


def plan_text_cache(
    captions: Iterable[tuple[str, WordRules]],
    *,
    text_width: int,
    max_token_length: int,
    dtype: StoredDtype,
    budget_bytes: int,
) -> TextCachePlan:
    """Decide whether all contexts fit `budget_bytes`. Pure.

    `captions` are each item's caption as read, with its rules.
    """
    texts: set[str] = set()
    context_bytes = context_size_bytes(text_width, max_token_length, dtype)
    for caption, rules in captions:
        words = possible_words(caption, rules)
        if words is None:
            return TextCachePlan(
                texts=(), num_bytes=0, reason="captions change by chance from use to use"
            )
        texts |= words
    num_bytes = len(texts) * context_bytes
    size = f"{len(texts)} contexts of {format_bytes(context_bytes)} are {format_bytes(num_bytes)}"
    budget = f"the budget is {format_bytes(budget_bytes)}"
    if num_bytes > budget_bytes:
        return TextCachePlan(texts=(), num_bytes=num_bytes, reason=f"{size}; {budget}")
    return TextCachePlan(
        texts=tuple(sorted(texts)), num_bytes=num_bytes, reason=f"{size}; {budget}"
    )


def context_size_bytes(text_width: int, max_token_length: int, dtype: StoredDtype) -> int:
    """Return the size of one context: each chunk's words, one start and one end."""
    num_chunks = max_token_length // TOKENS_PER_CHUNK
    return (num_chunks * TOKENS_PER_CHUNK + 2) * text_width * BYTES_OF[dtype]


def cache_contexts(
    texts: Sequence[str],
    *,
    store: TensorStore,
    recipe: TextRecipe,
    load_encoder: Callable[[], EncodeTexts],
    batch_size: int = 1,
    emit: Emit = ignore,
) -> TextCacheResult:
    """Encode the texts that the store lacks and return where all lie.

    Every batch is full, the last being filled up with its last text, so a context does not depend
    on which others were missing. `load_encoder` is called only where something is missing.

    Raises: DataError (a context is not finite), UserError (another process writes the cache),
    EnvironmentFault (disk full or not writable).
    """
    keys = {text: recipe.key(text) for text in sorted(set(texts))}
    held = store.has(list(keys.values()))
    missing = [text for text, is_held in zip(keys, held, strict=True) if not is_held]
    if missing or store.unconfirmed:
        with writer_of(store, emit=emit) as writer:
            if missing:
                _encode(
                    missing,
                    keys,
                    recipe=recipe,
                    writer=writer,
                    encode=load_encoder(),
                    batch_size=batch_size,
                    emit=emit,
                )
    return TextCacheResult(
        texts=len(keys),
        encoded=len(missing),
        reused=len(keys) - len(missing),
        keys=keys,
        cache=store.place,
    )


def _encode(
    missing: Sequence[str],
    keys: dict[str, str],
    *,
    recipe: TextRecipe,
    writer: StoreWriter,
    encode: EncodeTexts,
    batch_size: int,
    emit: Emit,
) -> None:
    started_s = shown_s = time.monotonic()
    emit(StageStarted(stage=STAGE, total=len(missing), unit="caption"))
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        filling = [batch[-1]] * (batch_size - len(batch))
        # The filling at the end has no text of its own.
        for text, context_SD in zip(batch, encode([*batch, *filling]), strict=False):
            if not fits(context_SD, recipe.dtype):
                raise DataError(
                    what="its context is not finite: the text encoder overflows, or its weights do",
                    where=f'caption "{text}"',
                    fix="keep contexts in fp32 or bf16, or use another model file",
                )
            writer.add(keys[text], context_SD, recipe.dtype)
        if time.monotonic() - shown_s >= PROGRESS_EVERY_S:
            shown_s = time.monotonic()
            emit(StageProgress(stage=STAGE, done=start + len(batch)))
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=STAGE, done=len(missing), duration_s=duration_s))
