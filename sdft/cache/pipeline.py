"""Decoding beside encoding: threads that work ahead, batches of one size.

In: jobs and a function for each; pictures and an encoder. Out: results in the jobs' order.
Shapes: B pictures, H W pixels, h w latent cells.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

Job = TypeVar("Job")
Result = TypeVar("Result")

Submit = Callable[[np.ndarray], Callable[[], np.ndarray]]
"""Begins to encode [B, H, W, 3] uint8; what it returns gives [B, 2 * 4, h, w] float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """One picture on its way through the VAE."""

    number: int
    """Of its placement in the plan."""
    key: str
    path: Path
    rgb_HWC: np.ndarray


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def work_ahead(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, num_threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield `function(job)` in the jobs' order, at most `ahead` of them begun and not yielded."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for job in jobs:
                if len(pending) >= ahead:
                    yield pending.popleft().result()
                pending.append(pool.submit(function, job))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def encode_pictures(
    pictures: Iterable[Picture], submit: Submit, *, batch_size: int
) -> Iterator[tuple[Picture, np.ndarray]]:
    """Yield each picture with its moments, neighbours of one size encoded together.

    Every batch is full, the last of a size being filled up with its last picture: what an item
    gets then depends on the item and `batch_size` alone. One batch is in work while the next is
    brought together.
    """
    in_work: tuple[list[Picture], Callable[[], np.ndarray]] | None = None
    for _, same_size in groupby(pictures, key=lambda picture: picture.rgb_HWC.shape):
        while batch := list(islice(same_size, batch_size)):
            filling = [batch[-1]] * (batch_size - len(batch))
            rgb_BHWC = np.stack([picture.rgb_HWC for picture in batch + filling])
            result = submit(rgb_BHWC)
            if in_work is not None:
                yield from _finished(*in_work)
            in_work = batch, result
    if in_work is not None:
        yield from _finished(*in_work)


def _finished(
    batch: list[Picture], result: Callable[[], np.ndarray]
) -> Iterator[tuple[Picture, np.ndarray]]:
    # The filling at the end has no picture of its own.
    return zip(batch, result(), strict=False)
