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
    """Return where latents and the like are kept: as set, or beside the file that names images."""
    return config.training.cache_dir or folder_of(config) / ".sdft-cache"


def output_folder(config: Config) -> Path:
    """Return where a run is written: `output_dir`, or, where that is a URL, a folder of the cache
    from which it is sent there."""
    output_dir = config.training.output_dir
    assert output_dir is not None, "the check of the settings asks for it"
    if not isinstance(output_dir, UrlPath):
        return output_dir
    digest = blake2b(str(output_dir).encode(), digest_size=6).hexdigest()
    return cache_folder(config) / "outputs" / f"{output_dir.name or 'outputs'}-{digest}"
