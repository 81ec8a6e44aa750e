"""The option values of `sdft convert` that need a look before they are used."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence

from sdft.errors import ConfigError, nearest


def choice(option: str, value: str | None, known: Sequence[str]) -> str | None:
    """Return `value` if it is one of `known`, or None for None.

    Raises: ConfigError with the nearest known value.
    """
    if value is None or value in known:
        return value
    raise ConfigError(
        what=f'"{value}" is not one of {", ".join(known)}',
        where=option,
        fix=nearest(value, list(known)),
    )


def one_precision(
    save_precision: str | None, *, fp16: bool, bf16: bool, as_float: bool
) -> str | None:
    """Return the precision that exactly one of the options names, or None for none of them.

    Raises: ConfigError where two contradict.
    """
    flags = {"fp16": fp16, "bf16": bf16, "float": as_float}
    named = {name for name, is_set in flags.items() if is_set}
    if save_precision is not None:
        named.add(save_precision)
    if len(named) > 1:
        raise ConfigError(
            what=f"two precisions at once: {', '.join(sorted(named))}",
            where="--save_precision",
            fix="name one",
        )
    return next(iter(named), None)


def which_generation(*, v1: bool, v2: bool) -> bool | None:
    """Return whether the person says that it is an SD 2.x; None where nothing is said.

    Raises: ConfigError where both are said.
    """
    if v1 and v2:
        raise ConfigError(what="a model is either a 1.x or a 2.x", where="--v1 --v2")
    return True if v2 else False if v1 else None


def metadata_texts(text: str | None) -> Mapping[str, str] | None:
    """Read `--metadata`: JSON, or a Python dict as sd-scripts takes it; nothing in it is run.

    Raises: ConfigError where it is neither.
    """
    if text is None:
        return None
    try:
        table = json.loads(text)
    except ValueError:
        table = _python_dict(text)
    if not isinstance(table, dict):
        raise ConfigError(
            what="this is no table of texts",
            where=f"--metadata {text[:80]}",
            fix="""write it like '{"modelspec.author": "me"}'""",
        )
    return {str(key): str(value) for key, value in table.items()}


def _python_dict(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
