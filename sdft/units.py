"""Sizes, durations and counts, read from and written for people."""

from __future__ import annotations

import re

from sdft.errors import UserError

_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTE_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_bytes(text: str) -> int:
    """Read `12GB`, `4.5 GiB` or a plain number of bytes.

    Raises: UserError.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    if match is None or match[1].count(".") > 1 or match[1] == ".":
        raise UserError(what=f'"{text}" is not a size', fix="write it like 12GB or 4.5GiB")
    return int(float(match[1]) * _BYTE_UNITS[(match[2] or "").lower()])


def format_bytes(num_bytes: float) -> str:
    """Write a size with decimal units: `3.44 GB`."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(num_bytes) >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{int(num_bytes)} B"


def parse_duration_s(text: str) -> float:
    """Read `7h30m`, `90s`, `1d` or a plain number of seconds.

    Raises: UserError.
    """
    stripped = text.strip().lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", stripped):
        return float(stripped)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([dhms])", stripped)
    if not parts or re.sub(r"[0-9.\sdhms]", "", stripped):
        raise UserError(what=f'"{text}" is not a duration', fix="write it like 7h30m or 90s")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(duration_s: float) -> str:
    """Write a duration in at most two units: `2h 05m`, `3m 07s`, `4.2s`."""
    if duration_s < 60:
        return f"{duration_s:.1f}s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"
