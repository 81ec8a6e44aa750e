"""A hypernetwork file: what it says of itself, and its tensors. Needs no torch.

In: a `.pt` of the AUTOMATIC1111 web UI (integer widths as keys, fields beside them), the same with
the old layer names, or our `.safetensors`. Out: HypernetworkFile, checked against its own fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sdft.errors import DataError, Problem
from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_header import read_header
from sdft.formats.tensor_file import PICKLE, SAFETENSORS, TensorFile, recognise
from sdft.formats.tensor_info import FLOAT_DTYPES, TensorInfo
from sdft.formats.zip_pickle import read_pickled_file
from sdft.models.hypernetwork_layers import (
    LINEAR,
    NORMAL,
    Structure,
    tensors_of,
)
from sdft.models.refuse import kind_of
from sdft.models.single_file import METADATA_SCALAR

FIELDS_KEY = "hypernetwork"
"""In the metadata of a .safetensors: the fields of a .pt, as one JSON object."""

KEYS, VALUES = "k", "v"
SIDES = (KEYS, VALUES)

PT = "pt"
"""The form that the web UIs read; the other one is `safetensors`."""

MAX_WIDTH = 65536
MAX_NUMBER = 2**53
"""Of a field. Whole numbers in a pickle can have millions of digits."""

_NAME = re.compile(r"(?P<width>[1-9][0-9]{0,4})\.(?P<side>[kv])\.(?P<rest>.+)")
_OLD_NAME = re.compile(r"linear(?P<number>[12])\.(?P<rest>weight|bias)")
_SHOWN = 5
"""Wrong tensors that are named; the rest is counted."""

Side = Mapping[str, LazyTensor]
Pairs = Mapping[int, Mapping[str, Side]]
"""Width to `k` and `v` to tensors, named as in a module: `linear.0.weight`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkFields:
    """What a file says beside its tensors; the values here are those of a field that is absent."""

    step: int = 0
    name: str = ""
    layer_structure: tuple[float, ...] = (1.0, 2.0, 1.0)
    activation_func: str = LINEAR
    is_layer_norm: bool = False
    weight_initialization: str = NORMAL
    use_dropout: bool = False
    activate_output: bool = True
    last_layer_dropout: bool = False
    dropout_structure: tuple[float, ...] | None = None
    sd_checkpoint: str | None = None
    """Short hash of the base model: the first ten digits of its file's SHA-256."""
    sd_checkpoint_name: str | None = None
    optional_info: str | None = None

    @property
    def structure(self) -> Structure:
        return Structure.of(
            layer_structure=self.layer_structure,
            activation_func=self.activation_func,
            is_layer_norm=self.is_layer_norm,
            use_dropout=self.use_dropout,
            activate_output=self.activate_output,
            last_layer_dropout=self.last_layer_dropout,
            dropout_structure=self.dropout_structure,
        )

    def as_plain(self) -> dict[str, Any]:
        """Return every field as the web UI writes it, with lists for tuples."""
        plain = asdict(self)
        plain["layer_structure"] = list(self.layer_structure)
        plain["dropout_structure"] = list(self.structure.dropout)
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkFile:
    path: Path
    form: str
    """`pt` or `safetensors`."""
    fields: HypernetworkFields
    pairs: Pairs
    metadata: Mapping[str, str]
    """Beside the fields, such as `modelspec.title`."""
    left_out: tuple[str, ...] = ()
    """What a .pt holds that no field is."""

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sorted(self.pairs))

    def tensors(self) -> dict[str, LazyTensor]:
        """Return all tensors by the names of the .safetensors form."""
        return named_tensors(self.pairs)


def named_tensors(pairs: Pairs) -> dict[str, LazyTensor]:
    """Name tensors as the .safetensors form does: `<width>.k.linear.0.weight`."""
    return {
        f"{width}.{side}.{name}": tensor
        for width in sorted(pairs)
        for side in SIDES
        for name, tensor in pairs[width][side].items()
    }


def paired_tensors(
    tensors: Mapping[str, LazyTensor],
) -> dict[int, dict[str, dict[str, LazyTensor]]]:
    """Undo `named_tensors`; names of another kind are left out."""
    pairs: dict[int, dict[str, dict[str, LazyTensor]]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        if found is not None:
            pair = pairs.setdefault(int(found["width"]), {side: {} for side in SIDES})
            pair[found["side"]][found["rest"]] = tensor
    return pairs


def is_hypernetwork(path: Path) -> bool:
    """Tell whether a file looks like a hypernetwork, whole or not; False for what is no file.

    A file that cannot be read is left to who reads it next.
    """
    if not path.is_file():
        return False
    try:
        if recognise(path) == SAFETENSORS:
            header = read_header(path)
            return FIELDS_KEY in header.metadata or any(map(_NAME.fullmatch, header.tensors))
        value = read_pickled_file(path).value
    except DataError:
        return False
    return isinstance(value, dict) and any(type(key) is int for key in value)


def read_hypernetwork(path: Path) -> HypernetworkFile:
    """Read and check a hypernetwork; no tensor is read, and nothing in a pickle is run.

    Raises: DataError where it is another kind of file, is damaged, or holds other layers than its
        fields say; OSError where it cannot be read.
    """
    read = _read_safetensors if recognise(path) == SAFETENSORS else _read_pickle
    found = read(path)
    problems = list(_mistakes(found))
    if problems:
        raise DataError(problems=problems)
    return found


def _read_safetensors(path: Path) -> HypernetworkFile:
    header = read_header(path)
    file = TensorFile(path=path, form=SAFETENSORS, tensors=header.tensors)
    tensors = file.all_lazy()
    pairs = paired_tensors(tensors)
    others = [name for name in tensors if not _NAME.fullmatch(name)]
    if others or not pairs:
        raise _other_kind(path, {name: info.shape for name, info in header.tensors.items()})
    metadata = {name: text for name, text in header.metadata.items() if name != "format"}
    text = metadata.pop(FIELDS_KEY, "{}")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(what=f"its fields are no JSON ({error})", where=str(path)) from error
    if not isinstance(table, dict):
        raise DataError(what="its fields are no table", where=str(path))
    return HypernetworkFile(
        path=path,
        form=SAFETENSORS,
        fields=_fields(path, table),
        pairs=_renamed(path, pairs),
        metadata=metadata,
        left_out=_unknown(table),
    )


def _read_pickle(path: Path) -> HypernetworkFile:
    table = read_pickled_file(path).value
    if not isinstance(table, dict):
        raise _other_kind(path, {})
    sizes = [key for key in table if type(key) is int]
    if not sizes:
        raise _other_kind(path, _shapes_in(table))
    # Named once more, because tensors are read by name.
    flat: dict[str, TensorInfo] = {}
    for width in sizes:
        pair = table[width]
        if not 0 < width <= MAX_WIDTH:
            raise DataError(what="it has modules for a width that cannot be", where=str(path))
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                what=f"width {width} is no pair of modules, for keys and for values",
                where=str(path),
            )
        for side, module in zip(SIDES, pair, strict=True):
            if not isinstance(module, dict):
                raise DataError(what=f"{width}.{side} is no table of tensors", where=str(path))
            for name, info in module.items():
                if not isinstance(name, str) or not isinstance(info, TensorInfo):
                    raise DataError(
                        what=f'"{name}" of {width}.{side} is no tensor', where=str(path)
                    )
                flat[f"{width}.{side}.{name}"] = info
    file = TensorFile(path=path, form=PICKLE, tensors=flat)
    beside = {key: value for key, value in table.items() if isinstance(key, str)}
    metadata = _pickled_metadata(beside.pop(METADATA_SCALAR, None))
    pairs: dict[int, dict[str, dict[str, LazyTensor]]]
    # A module without tensors has to be seen to be found wanting.
    pairs = {width: {side: {} for side in SIDES} for width in sizes}
    pairs |= paired_tensors(file.all_lazy())
    return HypernetworkFile(
        path=path,
        form=PT,
        fields=_fields(path, beside),
        pairs=_renamed(path, pairs),
        metadata=metadata,
        left_out=_unknown(beside),
    )


def _unknown(table: Mapping[str, Any]) -> tuple[str, ...]:
    known = {field.name for field in fields(HypernetworkFields)}
    return tuple(key for key in table if key not in known)


def _pickled_metadata(text: object) -> dict[str, str]:
    try:
        table = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(table, dict):
        return {}
    return {str(key): value for key, value in table.items() if isinstance(value, str)}


def _shapes_in(table: Mapping[Any, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a pickle's tensors, and its tables' names, to tell what it is."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in table.items():
        if isinstance(value, TensorInfo):
            shapes[str(key)] = value.shape
        elif isinstance(value, dict) and key in ("state_dict", "module", "model"):
            shapes |= _shapes_in(value)
        else:
            shapes[str(key)] = ()
    return shapes


def _other_kind(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> DataError:
    kind = kind_of(shapes)
    what = f"this is {kind}, no hypernetwork" if kind else "this is no hypernetwork"
    fix = "a hypernetwork has pairs of modules for widths such as 320, 640, 768 and 1280"
    return DataError(what=what, where=str(path), fix=fix)


def _renamed(
    path: Path, pairs: Mapping[int, Mapping[str, Mapping[str, LazyTensor]]]
) -> dict[int, dict[str, dict[str, LazyTensor]]]:
    """Give the layers of very old files, `linear1` and `linear2`, the names of today.

    Raises: DataError where a module has a layer under both names.
    """

    def now(module: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        named = {}
        for name, tensor in module.items():
            found = _OLD_NAME.fullmatch(name)
            new = f"linear.{int(found['number']) - 1}.{found['rest']}" if found else name
            if new in named:
                raise DataError(
                    what=f'a module has "{new}" under two names, an old and a new one',
                    where=str(path),
                )
            named[new] = tensor
        return named

    return {
        width: {side: now(pair[side]) for side in SIDES} for width, pair in sorted(pairs.items())
    }


def _fields(path: Path, table: Mapping[str, Any]) -> HypernetworkFields:
    """Read the fields; None stands for one that is absent.

    Raises: DataError for a field of the wrong type.
    """
    given: dict[str, Any] = {"name": path.stem}
    for field in fields(HypernetworkFields):
        value = table.get(field.name)
        if value is None:
            continue
        if not _KINDS.get(field.name, _is_flag)(value):
            raise DataError(
                what=f"its field {field.name} holds what cannot stand there", where=str(path)
            )
        if isinstance(value, list | tuple):
            given[field.name] = tuple(float(one) for one in value)
        else:
            given[field.name] = value if field.name in _KINDS else bool(value)
    return HypernetworkFields(**given)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or value in (0, 1)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_NUMBER


def _are_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        type(one) in (int, float) and abs(one) < MAX_NUMBER for one in value
    )


_KINDS: dict[str, Callable[[object], bool]] = {
    "step": _is_count,
    "name": _is_text,
    "layer_structure": _are_numbers,
    "dropout_structure": _are_numbers,
    "activation_func": _is_text,
    "weight_initialization": _is_text,
    "sd_checkpoint": _is_text,
    "sd_checkpoint_name": _is_text,
    "optional_info": _is_text,
}
"""What a field may hold; the others are true or false."""


def _mistakes(file: HypernetworkFile) -> list[Problem]:
    """Return what keeps the tensors from being the modules that the fields describe."""
    where = str(file.path)
    wrong = file.fields.structure.mistakes()
    if wrong:
        return [Problem(what, where) for what in wrong]
    found = []
    for width, pair in file.pairs.items():
        expected = tensors_of(file.fields.structure, width)
        for side in SIDES:
            found += _differences(f"{width}.{side}", pair[side], expected, where)
    if len(found) <= _SHOWN:
        return found
    return [*found[:_SHOWN], Problem(f"{len(found) - _SHOWN} more tensors do not fit", where)]


def _differences(
    module: str,
    tensors: Side,
    expected: Mapping[str, tuple[int, ...]],
    where: str,
) -> list[Problem]:
    fix = "its fields and its tensors are of two structures, or it is damaged"
    missing = [name for name in expected if name not in tensors]
    found = [Problem(f'"{module}.{name}" is missing', where, fix) for name in missing]
    for name, tensor in tensors.items():
        if name not in expected:
            what = f'"{module}.{name}" is no part of the structure that its fields describe'
            found.append(Problem(what, where, fix))
        elif tensor.shape != expected[name]:
            what = (
                f'"{module}.{name}" has the shape {list(tensor.shape)}, not {list(expected[name])}'
            )
            found.append(Problem(what, where, fix))
        elif tensor.dtype not in FLOAT_DTYPES:
            found.append(Problem(f'"{module}.{name}" holds {tensor.dtype}, no weights', where))
    return found
