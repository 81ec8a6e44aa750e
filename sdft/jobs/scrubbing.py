"""Takes out of texts what a person would not show: secrets, paths, names of images, prompts.

In: the text of a run's files. Out: the same with neutral names in their place, the same name for
the same thing in every file, so that one can still follow a picture through the record.
"""

from __future__ import annotations

import getpass
import platform
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdft.jobs.environment import hide_home

HIDDEN = "***"

_SECRET_NAME = re.compile(r"key|token|secret|password|passwd|credential|authorization", re.I)
"""Names of values that nobody else may see."""

_PLAIN_NAMES = (
    *("keep_tokens", "keep_tokens_separator", "class_tokens", "max_token_length"),
    *("token_warmup_min", "token_warmup_step", "tokens"),
)
"""Settings whose names only sound like it."""

_SECRETS = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\b(?:sk|pk|ghp|gho|glpat|xox[abp])[-_][A-Za-z0-9_-]{16,}"),
    re.compile(r"\b[0-9a-f]{40}\b"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{12,}"),
    re.compile(r"(?i)(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
)
"""Shapes of keys: of Hugging Face, of common services, of wandb (40 hex digits), in addresses."""

_ASSIGNED = re.compile(
    r"(?i)(--?[\w-]*(?:key|token|secret|password)(?:=|\s+|\"\s*:\s*\"))([^\s\"]+)"
)

IMAGE_ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "avif", "jxl", "gif", "tif", "tiff")

_START = r"(?<![\w:/.])(?:~|[A-Za-z]:)?[\\/]"
"""Where an absolute path, or one below the home folder, begins; of any system."""

_IMAGE_PATH = re.compile(rf"(?i){_START}[^\n\"'<>|*?]*?\.(?:{'|'.join(IMAGE_ENDINGS)})\b")
"""The path of an image, spaces and all."""

_PATH = re.compile(rf"{_START}+[^\\/\s\"'<>|:*?,;()\[\]{{}}]+[^\s\"'<>|:*?,;()\[\]{{}}]*")

_QUOTATION = re.compile(r'"([^"\n]{20,})"')
"""What a message quotes at length comes from captions or prompts."""

_PRIVATE_FIELDS = (
    *("prompt", "negative_prompt", "caption", "class_tokens"),
    *("caption_prefix", "caption_suffix"),
)
"""What a person wrote into these says what their pictures show."""


class Scrubber:
    """Gives each private thing a neutral name and remembers it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._names: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._whole: list[str] = []
        self._user = _user_name(environment)
        self._host = platform.node()

    def value(self, value: Any, name: str = "") -> Any:
        """Return a value of JSON or TOML with its texts cleaned; `name` is its key."""
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self.value(inner, str(key)) for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(inner, name) for inner in value]
        if not isinstance(value, str) or not value:
            return value
        if _SECRET_NAME.search(name) and name not in _PLAIN_NAMES:
            return HIDDEN
        if name in _PRIVATE_FIELDS or name.startswith("metadata_"):
            return f"<{len(value)} characters>"
        if name == "path":
            return self._path(hide_home(value, self._environment))
        return self.text(value)

    def text(self, text: str) -> str:
        """Return free text with secrets, paths, user and host taken out."""
        text = hide_home(text, self._environment)
        text = _ASSIGNED.sub(lambda match: match[1] + HIDDEN, text)
        for shape in _SECRETS:
            text = shape.sub(HIDDEN, text)
        text = _IMAGE_PATH.sub(lambda match: self._path(match[0]), text)
        # As one: a path with spaces would otherwise leave its second half behind.
        for path in self._whole:
            text = text.replace(path, self._names[path])
        text = _PATH.sub(lambda match: self._path(match[0]), text)
        text = _QUOTATION.sub(lambda match: f'"<{len(match[1])} characters>"', text)
        for private in (self._user, self._host):
            if len(private) > 2:
                text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", HIDDEN, text)
        return text

    def learn(self, path: str) -> None:
        """Note a path that later texts may hold, spaces and all. For a few, such as settings."""
        shown = hide_home(path, self._environment)
        self._path(shown)
        self._whole = sorted({*self._whole, shown}, key=len, reverse=True)

    def _path(self, path: str) -> str:
        """Return the neutral name of a path: its kind, its number, its ending."""
        if path in self._names:
            return self._names[path]
        name = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
        stem, dot, ending = name.rpartition(".")
        kind = "image" if ending.lower() in IMAGE_ENDINGS else "path"
        self._counts[kind] += 1
        suffix = f".{ending}" if dot and stem and len(ending) <= 12 else ""
        self._names[path] = f"<{kind} {self._counts[kind]}>{suffix}"
        return self._names[path]


def _user_name(environment: Mapping[str, str]) -> str:
    for name in ("USER", "USERNAME", "LOGNAME"):
        if environment.get(name):
            return environment[name]
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
