"""Reads from the headers of a tar archive where its members lie.

In: a file that can be sought in. Out: its members, in their order; contents are passed over. Only
what the archive itself says is believed where it can be: every header has a checksum, and nothing
may lie behind the end. Not by Python's tarfile, which takes a damaged header in the middle, and a
file cut between two members, for the end: images would be missing and nobody would know.

Source: POSIX.1-2001, pax and ustar interchange formats; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sdft.errors import DataError

BLOCK_BYTES = 512

MAX_EXTRA_BYTES = 1 << 20
"""Of a long name or of pax records; no file system has names that come near it."""

BEHIND_THE_END_BYTES = 1 << 20
"""Looked at behind the end: archives are filled up with zeros, mostly to 10 KiB."""

_ZEROS = bytes(BLOCK_BYTES)
_CHECKSUM = slice(148, 156)
_FILES = (b"0", b"\0", b"7")
_LINKS = (b"1", b"2")
_WITHOUT_CONTENT = (*_LINKS, b"3", b"4", b"5", b"6")


class DamagedTar(DataError):
    """A file that is no tar archive, or not a whole one; `what` is the reason in words."""


@dataclass(frozen=True, slots=True)
class TarMember:
    name: str
    """As it stands there; what is not UTF-8 in it is as in names of files."""
    start: int
    """Of the content, in bytes from the archive's begin; the header is the block before it."""
    num_bytes: int
    header_check: int
    """CRC-32 of that block, by which a changed archive is noticed."""
    why_not: str = ""
    """Why it has no content that could be read; empty for a file."""


def tar_members(file: BinaryIO, file_bytes: int) -> Iterator[TarMember]:
    """Yield files, links and sparse files; folders and devices are passed over.

    The caller may read from `file` in between.

    Raises: DamagedTar, in the middle of it too; OSError.
    """
    position = 0
    said: dict[str, str] = {}
    while True:
        file.seek(position)
        block = file.read(BLOCK_BYTES)
        if block == _ZEROS:
            _require_nothing_behind(file, position)
            return
        _require_header(block, position, file_bytes)
        kind, num_bytes = block[156:157], _size(block, position)
        start = position + BLOCK_BYTES
        if kind in (b"x", b"g", b"L", b"K"):
            said |= _said(kind, _extra(file, num_bytes, position), position)
            position = start + _in_blocks(num_bytes)
            continue
        name = said.get("path") or _name(block)
        if "size" in said:
            num_bytes = _decimal(said["size"], position)
        is_sparse = kind == b"S" or any(key.startswith("GNU.sparse") for key in said)
        said = {}
        content_bytes = 0 if kind in _WITHOUT_CONTENT else num_bytes
        if start + content_bytes > file_bytes:
            raise DamagedTar(
                f"cut off within {name}: it has {file_bytes} bytes and should have at least"
                f" {start + content_bytes}"
            )
        position = start + _in_blocks(content_bytes)
        if kind in _LINKS:
            yield TarMember(name, start, 0, 0, "a link, which has no content of its own")
        elif is_sparse:
            yield TarMember(name, start, 0, 0, "a sparse file, which tar stores in pieces")
        # The oldest archives mark a folder by its name alone.
        elif kind in _FILES and not name.endswith("/"):
            yield TarMember(name, start, num_bytes, zlib.crc32(block))


def _require_header(block: bytes, position: int, file_bytes: int) -> None:
    if not position and block[:2] == b"\x1f\x8b":
        raise DamagedTar("it is compressed, so nothing in its middle can be read alone: unpack it")
    if len(block) < BLOCK_BYTES:
        if not file_bytes:
            raise DamagedTar("the file is empty (0 bytes)")
        raise DamagedTar(f"cut off: it ends at byte {file_bytes}, without the mark of an end")
    checksum = _octal(block[_CHECKSUM])
    plain = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    # Some old programs added bytes as signed numbers.
    if checksum != plain and checksum != plain - 256 * sum(byte > 127 for byte in block):
        raise DamagedTar(f"damaged at byte {position}" if position else "not a tar archive")


def _require_nothing_behind(file: BinaryIO, end: int) -> None:
    """What stands behind the end would be passed over by every program, and nobody would know."""
    if file.read(BEHIND_THE_END_BYTES).strip(b"\0"):
        raise DamagedTar(
            f"more stands behind its end at byte {end}, such as a second archive: pack it anew"
        )


def _extra(file: BinaryIO, num_bytes: int, position: int) -> bytes:
    if num_bytes > MAX_EXTRA_BYTES:
        raise DamagedTar(f"damaged at byte {position}: a name of {num_bytes} bytes")
    content = file.read(num_bytes)
    if len(content) < num_bytes:
        raise DamagedTar(f"cut off within a name at byte {position}")
    return content


def _said(kind: bytes, content: bytes, position: int) -> dict[str, str]:
    """Return what an extra header says of the next member."""
    if kind == b"L":
        return {"path": _text(content.rstrip(b"\0"))}
    # What counts for all members is never a name or a size; of links nothing is needed.
    return _pax(content, position) if kind == b"x" else {}


def _pax(content: bytes, position: int) -> dict[str, str]:
    """Return pax records: `<length> <key>=<value>` and a line end, the length counts all of it."""
    records: dict[str, str] = {}
    while content:
        digits, space, _ = content.partition(b" ")
        length = _decimal(_text(digits[:20]), position)
        record = content[len(digits) + 1 : length]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not (space and equals and record.endswith(b"\n")):
            raise DamagedTar(f"damaged at byte {position}: broken pax records")
        records[_text(key)] = _text(value)
        content = content[length:]
    return records


def _name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    # GNU's own format has other things in the place of the prefix.
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _size(block: bytes, position: int) -> int:
    field = block[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    size = _octal(field)
    if size is None:
        raise DamagedTar(f"damaged at byte {position}: no size")
    return size


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits or b"0", 8) if all(byte in b"01234567" for byte in digits) else None


def _decimal(digits: str, position: int) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise DamagedTar(f"damaged at byte {position}: broken pax records")
    return int(digits)


def _in_blocks(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
