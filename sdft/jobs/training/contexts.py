"""The contexts of a frozen text encoder: kept where the run's words are few enough.

In: the placements with their captions and rules, the networks. Out: Contexts, or None where the
text encoder runs in each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sdft.cache.keys import TextRecipe
from sdft.cache.store import TensorStore
from sdft.cache.text import cache_contexts, plan_text_cache
from sdft.config.training import TrainingSettings
from sdft.dataset.records import Placement, WordRules
from sdft.events import Emit, Notice
from sdft.jobs.training.latents import DTYPE_NAMES
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.recipes import caption_reader
from sdft.models.digest import weights_digest
from sdft.models.text import text_state_dict
from sdft.train.contexts import Contexts

BYTES_PER_GB = 10**9

BATCH_SIZE = 8
"""Captions that are encoded at once. Always the same, since the bits may depend on it."""


def cached_contexts(
    settings: TrainingSettings,
    placements: Sequence[Placement],
    words: Mapping[tuple[int, int], WordRules],
    networks: Networks,
    *,
    store: TensorStore,
    emit: Emit,
) -> Contexts | None:
    """Encode all texts that the run can read, if they are few enough; say what was decided.

    A kept context has every bit that the text encoder gave, and a run reads either none or all of
    its contexts from the cache: so a resumed run reads the same as one that never stopped.

    `store` is where they are kept.

    Raises: what `cache_contexts` raises.
    """
    if networks.trains_text or settings.text_cache_gb == 0:
        return None
    text_encoder, bundle = networks.plain_text_encoder, networks.bundle
    dtype = next(text_encoder.parameters()).dtype
    stored = DTYPE_NAMES[dtype]
    plan = plan_text_cache(
        ((one.item.caption, words[one.item.dataset, one.item.subset]) for one in placements),
        text_width=text_encoder.config.hidden_size,
        max_token_length=settings.max_token_length,
        dtype=stored,
        budget_bytes=int(settings.text_cache_gb * BYTES_PER_GB),
    )
    does = "are kept" if plan.is_used else "are made in each step"
    message = f"what the text encoder makes of captions: they {does}; {plan.reason}"
    emit(Notice(severity="info", topic="cache", message=message))
    if not plan.is_used:
        return None
    reader = caption_reader(settings, bundle.tokenizer)

    def encode(texts: Sequence[str]) -> np.ndarray:
        captions = [reader.read(text) for text in texts]
        ids_BKS = torch.tensor([caption.ids_KS for caption in captions])
        weights_BKS = None
        if reader.weighted:
            weights_BKS = torch.tensor([caption.weights_KS for caption in captions])
        contexts_BSD = networks.encode_text(ids_BKS, weights_BKS)
        assert contexts_BSD.dtype == dtype, "else the store would not hold every bit"
        values: np.ndarray = contexts_BSD.float().cpu().numpy()
        return values

    result = cache_contexts(
        plan.texts,
        store=store,
        recipe=TextRecipe(
            encoder_digest=weights_digest(text_state_dict(text_encoder)),
            encoder_dtype=stored,
            clip_skip=settings.clip_skip,
            max_token_length=settings.max_token_length,
            weighted=settings.weighted_captions,
            cut_at_commas=settings.cut_at_commas,
            padding=bundle.tokenizer.padding,
            dtype=stored,
        ),
        load_encoder=lambda: encode,
        batch_size=BATCH_SIZE,
        emit=emit,
    )
    return Contexts(read=store.read, fetch=store.fetch, keys=result.keys, dtype=dtype)
