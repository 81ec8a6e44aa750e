"""Threads work ahead within bounds, and results come in order."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdft.cache.pipeline import Picture, encode_pictures, work_ahead
from tests.unit.cache.pictures import CellMeans


def test_results_come_in_the_jobs_order_whichever_is_done_first() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.01 if number % 2 == 0 else 0.0)
        return number

    assert list(work_ahead(slow_when_even, range(20), num_threads=4, ahead=8)) == list(range(20))


def test_no_more_is_begun_than_asked_for() -> None:
    begun = 0
    lock = threading.Lock()

    def count(number: int) -> int:
        nonlocal begun
        with lock:
            begun += 1
        return number

    with contextlib.closing(work_ahead(count, range(100), num_threads=4, ahead=6)) as results:
        for taken in range(1, 20):
            next(results)
            time.sleep(0.002)
            assert begun <= taken + 6
    time.sleep(0.02)
    assert begun <= 26


def test_a_jobs_error_is_raised_where_its_result_would_come() -> None:
    results = work_ahead(lambda number: 1 // number, [1, 0, 1], num_threads=2, ahead=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def pictures(*sizes: tuple[int, int]) -> list[Picture]:
    return [
        Picture(
            number=number,
            key=str(number),
            path=Path(),
            rgb_HWC=np.full((height, width, 3), number, dtype=np.uint8),
        )
        for number, (width, height) in enumerate(sizes)
    ]


def test_each_picture_gets_its_own_moments_and_all_batches_are_full() -> None:
    encoder = CellMeans()
    made = encode_pictures(
        pictures((8, 8), (8, 8), (8, 8), (16, 8), (16, 8), (8, 8)), encoder.submit, batch_size=2
    )
    found = {picture.number: float(moments[0].mean()) * 255 for picture, moments in made}
    assert found == pytest.approx({number: number for number in range(6)})
    assert encoder.batch_sizes == [2, 2, 2, 2]


def test_one_batch_is_in_work_while_the_next_is_brought_together() -> None:
    said: list[str] = []

    def submit(rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        number = int(rgb_BHWC[0, 0, 0, 0])
        said.append(f"begin {number}")

        def result() -> np.ndarray:
            said.append(f"wait for {number}")
            return np.zeros((1, 8, 1, 1), dtype=np.float32)

        return result

    list(encode_pictures(pictures((8, 8), (8, 8), (8, 8)), submit, batch_size=1))
    assert said == ["begin 0", "begin 1", "wait for 0", "begin 2", "wait for 1", "wait for 2"]
