"""One file from the network, going on where an earlier attempt broke off.

In: an address and what the file should be. Out: the file, whole, or an error. The hub's own client
begins a file anew whenever its process ends, which for a model of gigabytes is a lost evening.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sdft.errors import EnvironmentFault
from sdft.files import PART_MARK, flush_to_disk, remove, replace

BLOCK_BYTES = 1 << 18
TIMEOUT_S = 30.0
PAUSE_S = 1.0
"""Before another try."""
NUM_TRIES = 5
"""In a row without a byte received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    url: str
    num_bytes: int
    sha256: str | None
    """None where the server does not say."""
    version: str
    """Parts of another version are not gone on with."""


def download(
    remote: RemoteFile,
    path: Path,
    *,
    headers: Mapping[str, str],
    received: Callable[[int], None],
) -> None:
    """Download a file to `path`; `received` is told how many bytes of it are here.

    Raises: EnvironmentFault where the connection breaks again and again, or the content is not
        what the server said; urllib.error.HTTPError where it refuses.
    """
    part = path.with_name(f"{path.name}{PART_MARK}{remote.version[:12]}")
    part.parent.mkdir(parents=True, exist_ok=True)
    num_failed = 0
    while (here := _size_of(part)) < remote.num_bytes or not part.exists():
        try:
            _receive(remote, part, here, headers, received)
            if _size_of(part) < remote.num_bytes:
                raise ConnectionError("the connection was closed early")
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as error:
            num_failed = 0 if _size_of(part) > here else num_failed + 1
            if num_failed >= NUM_TRIES:
                raise EnvironmentFault(
                    what=f"the download broke off at byte {_size_of(part)}: {error}",
                    where=str(path),
                    fix="run the same command again; it goes on from there",
                ) from error
            time.sleep(PAUSE_S)
    _check(remote, part, path)
    flush_to_disk(part)
    replace(part, path)


def _receive(
    remote: RemoteFile,
    part: Path,
    here: int,
    headers: Mapping[str, str],
    received: Callable[[int], None],
) -> None:
    request = urllib.request.Request(remote.url, headers=dict(headers))
    if here:
        request.add_header("Range", f"bytes={here}-")
    opener = urllib.request.build_opener(_NoTokenElsewhere())
    with opener.open(request, timeout=TIMEOUT_S) as answer:
        goes_on = here > 0 and answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                received(file.tell())


def _check(remote: RemoteFile, part: Path, path: Path) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    size = _size_of(part)
    if size != remote.num_bytes or remote.sha256 not in (None, digest.hexdigest()):
        remove(part)
        raise EnvironmentFault(
            what="what was downloaded is not the file that the server described",
            where=str(path),
            fix="run the same command again; it is downloaded anew",
        )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _NoTokenElsewhere(urllib.request.HTTPRedirectHandler):
    """Sends the login to the hub only, not to the storage that it points to."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            request.remove_header("Authorization")
        return request
