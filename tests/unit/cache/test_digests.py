"""A file is read again exactly when it may have changed."""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from pathlib import Path

import pytest

from sdft.cache.digests import FileDigests, FileVersion, read_with_digest
from sdft.errors import DataError


def written(path: Path, content: bytes, *, age_s: float = 3600.0) -> FileVersion:
    """Write a file that looks as if it had been written `age_s` ago."""
    path.write_bytes(content)
    then_ns = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(then_ns, then_ns))
    status = path.stat()
    return FileVersion(path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    written(tmp_path / "a.png", b"one")
    written(tmp_path / "b.png", b"one", age_s=10)
    one = read_with_digest(tmp_path / "a.png")
    assert one.known.digest == read_with_digest(tmp_path / "b.png").known.digest
    assert one.known.digest == blake2b(b"one", digest_size=16).hexdigest()
    assert one.content == b"one"


def test_a_second_start_remembers_files_that_did_not_change(tmp_path: Path) -> None:
    same = written(tmp_path / "same.png", b"one")
    edited = written(tmp_path / "edited.png", b"one")
    with FileDigests(tmp_path / "digests.sqlite") as digests:
        assert digests.remembered([same, edited]) == [None, None]
        first = digests.digest(same.path)
        digests.digest(edited.path)
    edited = written(tmp_path / "edited.png", b"two", age_s=1800)
    with FileDigests(tmp_path / "digests.sqlite") as digests:
        assert digests.remembered([same, edited]) == [first, None]


def test_a_file_written_this_moment_is_not_trusted_to_stay(tmp_path: Path) -> None:
    young = written(tmp_path / "young.png", b"one", age_s=0.0)
    with FileDigests(tmp_path / "digests.sqlite") as digests:
        digests.digest(young.path)
    with FileDigests(tmp_path / "digests.sqlite") as digests:
        assert digests.remembered([young]) == [None]


def test_names_that_are_no_text_are_remembered_too(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9 [1].png")
    try:
        version = written(odd, b"one")
    except OSError:
        pytest.skip("this file system takes text names only")
    with FileDigests(tmp_path / "digests.sqlite") as digests:
        digest = digests.digest(odd)
        digests.write()
        assert digests.remembered([version]) == [digest]


def test_a_file_that_keeps_changing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing.png"
    path.write_bytes(b"one")
    real_fstat = os.fstat

    def fstat_after_growth(descriptor: int) -> os.stat_result:
        with path.open("ab") as file:
            file.write(b"more")
        return real_fstat(descriptor)

    monkeypatch.setattr(os, "fstat", fstat_after_growth)
    with pytest.raises(DataError, match=r"growing\.png: it keeps changing"):
        read_with_digest(path)


def test_a_damaged_file_of_digests_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "digests.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(DataError, match="remove this file"):
        FileDigests(path).__enter__()
