"""Where on this machine a config's work goes.

In: a Config. Out: folders; nothing is made.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from sdft.config.load import Config
from sdft.urls import UrlPath


def folder_of(config: Config) -> Path:
    """Return the folder of the dataset file, or of CONFIG, or the current one."""
    file = config.dataset_path or config.path
    return file.parent if file is not None else Path.cwd()


def cache_folder(config: Config) -> Path:
    """Return where latents and the like are kept on this machine: as set, or beside the file that
    names images. Where `cache_dir` is a URL it is a folder there for what is kept of it here."""
    cache_dir = config.training.cache_dir
    own = folder_of(config) / ".sdft-cache"
    if isinstance(cache_dir, UrlPath):
        return own / _name_of(cache_dir)
    return cache_dir or own


def cache_url(config: Config) -> str | None:
    """Return the URL that latents and the like are kept at; None where that is a folder."""
    cache_dir = config.training.cache_dir
    return str(cache_dir).rstrip("/") if isinstance(cache_dir, UrlPath) else None


def output_folder(config: Config) -> Path:
    """Return where a run is written: `output_dir`, or, where that is a URL, a folder of the cache
    from which it is sent there."""
    output_dir = config.training.output_dir
    assert output_dir is not None, "the check of the settings asks for it"
    if not isinstance(output_dir, UrlPath):
        return output_dir
    return cache_folder(config) / "outputs" / _name_of(output_dir)


def _name_of(url: UrlPath) -> str:
    digest = blake2b(str(url).encode(), digest_size=6).hexdigest()
    return f"{url.name or 'outputs'}-{digest}"
