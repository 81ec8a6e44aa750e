"""Where a config's latents, contexts and masks are kept, and what is known of its images.

In: a Config. Out: stores and tables, on this machine's disk or in an object store.
"""

from __future__ import annotations

from sdft.cache.digests import FileDigests
from sdft.cache.remote_store import RemoteStore
from sdft.cache.shared_table import SharedTable
from sdft.cache.store import TensorStore
from sdft.config.folders import cache_folder, cache_url
from sdft.config.load import Config
from sdft.dataset.object_cache import ObjectCache
from sdft.events import Emit

GB = 10**9


def tensor_store(config: Config, name: str, emit: Emit) -> TensorStore:
    """Return one of the stores of the config's cache: latents, contexts or masks."""
    folder, url = cache_folder(config) / name, cache_url(config)
    if url is None:
        return TensorStore(folder)
    return RemoteStore(folder, f"{url}/{name}", object_cache(config), emit)


def file_digests(config: Config, emit: Emit) -> FileDigests:
    """Return what is known of the contents of files and objects; a context manager."""
    shared = shared_table(config, "digests", emit)
    return FileDigests(cache_folder(config) / "digests.sqlite", shared)


def shared_table(config: Config, table: str, emit: Emit) -> SharedTable | None:
    """Return where a table is shared with other machines; None where the cache is a folder."""
    url = cache_url(config)
    if url is None:
        return None
    return SharedTable(url=f"{url}/{table}.sqlite", table=table, emit=emit)


def object_cache(config: Config) -> ObjectCache:
    """Return where what is read of object stores is kept on this machine."""
    folder = cache_folder(config) / "objects"
    return ObjectCache(folder, int(config.training.object_cache_gb * GB))
