"""Names of files that lie elsewhere, such as `s3://bucket/cats/1.png`.

In: text. Out: a UrlPath, which is a Path whose text keeps its `://`, so that names are joined and
shown as those of local files are. Whoever asks the disk for one finds nothing there: what can read
it is `sdft.dataset.objects`. Credentials never stand in a name; they are refused, not hidden.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")

_URL = re.compile(rf"(?:{'|'.join(SCHEMES)})://", re.IGNORECASE)
_USER = re.compile(r"(://)[^/@\s]+@")
_QUERY = re.compile(r"(://[^\s?\"']+)\?[^\s\"'>)]+")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING|SAS")
_SHORTEST_SECRET = 6
"""A shorter value would blank out words that are no secrets."""


def is_url(text: str) -> bool:
    return _URL.match(text) is not None


def holds_credentials(url: str) -> bool:
    """Tell whether a URL has a user, or a query, where signatures and tokens stand."""
    return _USER.search(url) is not None or "?" in url


def redacted(text: str) -> str:
    """Return a library's message without users and queries of URLs, and without what environment
    variables for secrets hold."""
    text = _QUERY.sub(r"\1", _USER.sub(r"\1", text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return text


def as_path(text: str) -> Path:
    """Return the path of a local file or of one that lies elsewhere."""
    return UrlPath(text) if is_url(text) else Path(text)


# Path itself cannot be subclassed before Python 3.12, only the class of this system's paths.
class UrlPath(type(Path())):  # type: ignore[misc]
    """A Path to something that is not on this machine's disk."""

    def __str__(self) -> str:
        # Paths keep one of two slashes, and on Windows turn them.
        scheme, _, rest = str(super().__str__()).replace("\\", "/").partition(":/")
        return f"{scheme.rstrip(':')}://{rest}"

    def absolute(self) -> UrlPath:
        return self

    def is_absolute(self) -> bool:
        return True
