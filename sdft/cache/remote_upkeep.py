"""Is a cache in an object store whole?

In: its URL. Out: what every byte of it was found to be, one shard after the other: each is brought
to this machine's disk for a moment.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from sdft.cache.remote_store import RemoteStore
from sdft.cache.shard import DamagedShard, read_shard
from sdft.cache.upkeep import VERIFY_STAGE, StoreReport
from sdft.dataset.object_cache import ObjectCache
from sdft.errors import Problem
from sdft.events import Emit, StageFinished, StageProgress, StageStarted
from sdft.urls import UrlPath

STORES = ("", "latents", "contexts", "masks")
"""What a cache holds, and the URL of one of them itself."""


def verify_remote(url: str, *, emit: Emit) -> dict[Path, StoreReport]:
    """Read every byte of every shard below a URL; none where there are no shards.

    Raises: EnvironmentFault where the store cannot be used.
    """
    reports: dict[Path, StoreReport] = {}
    with tempfile.TemporaryDirectory(prefix="sdft-", ignore_cleanup_errors=True) as folder:
        for name in STORES:
            store = RemoteStore(
                Path(folder), f"{url}/{name}".rstrip("/"), ObjectCache(Path(folder), 0), emit
            )
            report = _verified(store, Path(folder) / "shard", emit)
            if report.shards:
                reports[store.place] = report
    return reports


def _verified(store: RemoteStore, file: Path, emit: Emit) -> StoreReport:
    shards = store.listed()
    problems: list[Problem] = []
    keys: set[str] = set()
    size_bytes = 0
    started_s = time.monotonic()
    if shards:
        emit(StageStarted(stage=VERIFY_STAGE, total=len(shards), unit="shard"))
    for number, shard in enumerate(shards, start=1):
        where = str(UrlPath(store.shard_url(shard.name)))
        try:
            file.write_bytes(store.whole(shard).tobytes())
            keys |= {entry.key for entry in read_shard(file)}
            size_bytes += shard.size_bytes
        except DamagedShard as damage:
            fix = "remove it: what it held is made anew"
            problems.append(Problem(damage.problems[0].what, where, fix))
        except FileNotFoundError:
            problems.append(Problem("a cache file is missing", where, "run it once more"))
        emit(StageProgress(stage=VERIFY_STAGE, done=number))
    if shards:
        duration_s = time.monotonic() - started_s
        emit(StageFinished(stage=VERIFY_STAGE, done=len(shards), duration_s=duration_s))
    return StoreReport(
        shards=len(shards), entries=len(keys), size_bytes=size_bytes, problems=tuple(problems)
    )
