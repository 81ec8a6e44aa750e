"""A pickle read as data: nothing in it is imported, called or built.

A pickle is a small program. This reader follows only those of its instructions that make plain
values (numbers, texts, lists, tuples, dicts) and the few calls by which torch describes a tensor,
for which it has replacements of its own. Every other name or instruction is refused by name.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_PICKLE_BYTES = 64 * 2**20
"""A whole SD checkpoint with optimizer states describes itself in about 2 MB."""
MAX_INSTRUCTIONS = 2_000_000
"""The same checkpoint takes about 200,000. One of 1 byte can make an object of 64."""
MAX_AXES = 64
"""The limit of torch."""


class RefusedPickle(ValueError):
    """The pickle holds something else than tensors and plain containers; says what."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle mentions, such as `torch.FloatStorage`. Never imported."""

    text: str


@dataclass(frozen=True, slots=True)
class StorageRef:
    """The bytes behind one or more tensors."""

    key: str
    dtype: str
    num_elements: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    storage: StorageRef
    first: int
    """Index of the first element in the storage."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_row_major(self) -> bool:
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


STORAGE_DTYPES = {
    "torch.BFloat16Storage": "BF16",
    "torch.BoolStorage": "BOOL",
    "torch.ByteStorage": "U8",
    "torch.CharStorage": "I8",
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.IntStorage": "I32",
    "torch.LongStorage": "I64",
    "torch.ShortStorage": "I16",
}

_INERT_NAMES = frozenset(
    {
        # The published SD 1.x training checkpoints use this class as the key of a table.
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    }
)
"""Names that may stand in a pickle as long as it does not call them."""


@dataclass(frozen=True, slots=True)
class _NumpyDtype:
    code: str


def _make_storage_tensor(storage: Any, first: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    sizes_are_right = (
        isinstance(storage, StorageRef)
        and type(first) is int
        and 0 <= first < 2**63
        and _is_size_tuple(shape)
        and _is_size_tuple(strides)
        and len(shape) == len(strides)
    )
    if not sizes_are_right:
        raise RefusedPickle("a tensor with no proper shape")
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    num_elements = math.prod(shape)
    if num_elements and first + last >= storage.num_elements:
        raise RefusedPickle("a tensor that reaches beyond its storage")
    # Strides of 0 let a few bytes stand for any number of elements.
    if num_elements > storage.num_elements:
        raise RefusedPickle("a tensor that is larger than its storage")
    return TensorRef(storage, first, tuple(shape), tuple(strides))


def _is_size_tuple(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_AXES
        and all(type(size) is int and 0 <= size < 2**63 for size in value)
    )


def _make_parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


def _make_size(sizes: Any) -> Any:
    if not _is_size_tuple(sizes):
        raise RefusedPickle("a torch.Size of something else than sizes")
    return sizes


def _make_ordered_dict(items: Any = ()) -> Any:
    # Entries come by later instructions; as an argument, one list could be copied without end.
    if items:
        raise RefusedPickle("an OrderedDict in the form of Python 2")
    return {}


def _make_numpy_dtype(code: Any, *rest: Any) -> Any:
    if not isinstance(code, str):
        raise RefusedPickle("a numpy dtype without a name")
    return _NumpyDtype(code)


def _make_numpy_scalar(dtype: Any, raw: Any = b"") -> Any:
    formats = {"f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q"}
    if not isinstance(dtype, _NumpyDtype) or dtype.code not in formats:
        raise RefusedPickle("a numpy number of an unusual kind")
    if not isinstance(raw, bytes) or len(raw) != struct.calcsize(formats[dtype.code]):
        raise RefusedPickle("a numpy number of the wrong length")
    return struct.unpack(formats[dtype.code], raw)[0]


def _encode_latin1(text: Any, encoding: Any = "latin1") -> Any:
    # The numbers that use this take 8 bytes; copies of a long text could fill the memory.
    if not isinstance(text, str) or encoding != "latin1" or len(text) > 16:
        raise RefusedPickle("bytes in an unusual encoding")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise RefusedPickle("bytes that are none") from error


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _make_ordered_dict,
    "torch.Size": _make_size,
    "torch._utils._rebuild_parameter": _make_parameter,
    "torch._utils._rebuild_tensor": _make_storage_tensor,
    "torch._utils._rebuild_tensor_v2": _make_storage_tensor,
    # numpy's own numbers turn up as losses and step counters.
    "_codecs.encode": _encode_latin1,
    "numpy.dtype": _make_numpy_dtype,
    "numpy.core.multiarray.scalar": _make_numpy_scalar,
    "numpy._core.multiarray.scalar": _make_numpy_scalar,
}


def read_pickle(
    raw: bytes | memoryview, storages: dict[str, StorageRef] | None = None
) -> tuple[Any, int]:
    """Return the value that a pickle describes, and how many bytes it takes.

    Tensors come as TensorRef, names of classes as Name. Every storage that it mentions is put
    into `storages` by its key.
    Raises: RefusedPickle.
    """
    machine = _Machine({} if storages is None else storages)
    stream = io.BytesIO(raw)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= MAX_INSTRUCTIONS:
                raise RefusedPickle("more instructions than any model needs")
            if opcode.name == "STOP":
                return machine.result(), stream.tell()
            machine.step(opcode.name, argument)
    except RefusedPickle:
        raise
    except (ValueError, IndexError, OverflowError, UnicodeError) as error:
        raise RefusedPickle(f"something that is no pickle ({error})") from error
    raise RefusedPickle("a pickle without an end")


_MARK = object()
_IGNORED = frozenset({"PROTO", "FRAME"})
_PUSH_ARGUMENT = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_PUSH_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The pickle's stack and memory."""

    def __init__(self, storages: dict[str, StorageRef]) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages = storages

    def result(self) -> Any:
        if len(self._stack) != 1:
            raise RefusedPickle("a pickle that ends in the middle")
        return self._pop()

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _IGNORED:
            return
        if opcode in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif opcode in _PUSH_NEW:
            self._stack.append(_PUSH_NEW[opcode]())
        elif opcode in _TUPLE_LENGTHS:
            self._stack.append(tuple(self._pop_many(_TUPLE_LENGTHS[opcode])))
        else:
            handler = getattr(self, f"_do_{opcode.lower()}", None)
            if handler is None:
                raise RefusedPickle(f"the instruction {opcode}")
            handler(argument)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise RefusedPickle("a pickle whose stack is out of order")
        return value

    def _pop_many(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _do_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _do_pop(self, _: Any) -> None:
        self._stack.pop()

    def _do_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _do_list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _do_dict(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._stack.append({})
        self._set_items(values)

    def _do_append(self, _: Any) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _do_appends(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._top(list).extend(values)

    def _do_setitem(self, _: Any) -> None:
        self._set_items(self._pop_many(2))

    def _do_setitems(self, _: Any) -> None:
        self._set_items(self._pop_to_mark())

    def _set_items(self, values: list[Any]) -> None:
        table = self._top(dict)
        if len(values) % 2:
            raise RefusedPickle("a table with a key that has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            _set_item(table, key, value)

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise RefusedPickle(f"a {kind.__name__} that is none")
        return self._stack[-1]

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _put(self, argument: Any) -> None:
        self._memo[int(argument)] = self._stack[-1]

    def _get(self, argument: Any) -> None:
        if int(argument) not in self._memo:
            raise RefusedPickle("a pickle that refers to nothing")
        self._stack.append(self._memo[int(argument)])

    _do_put = _do_binput = _do_long_binput = _put
    _do_get = _do_binget = _do_long_binget = _get

    def _do_global(self, argument: str) -> None:
        self._push_name(argument.replace(" ", "."))

    def _do_stack_global(self, _: Any) -> None:
        module, name = self._pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedPickle("a name that is none")
        self._push_name(f"{module}.{name}")

    def _push_name(self, text: str) -> None:
        if text not in _CALLS and text not in STORAGE_DTYPES and text not in _INERT_NAMES:
            raise RefusedPickle(f'"{text[:200]}"')
        self._stack.append(Name(text))

    def _do_reduce(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        self._call(function, arguments)

    def _do_newobj(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        self._call(function, arguments)

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Name) or function.text not in _CALLS:
            called = function.text if isinstance(function, Name) else type(function).__name__
            raise RefusedPickle(f'a call of "{called}"')
        if not isinstance(arguments, tuple):
            raise RefusedPickle("a call without arguments")
        try:
            self._stack.append(_CALLS[function.text](*arguments))
        except TypeError as error:
            raise RefusedPickle(f'a wrong call of "{function.text}"') from error

    def _do_build(self, _: Any) -> None:
        # The state of an OrderedDict is torch's version table, that of a dtype its byte order;
        # both say nothing about the tensors.
        self._pop()
        if not isinstance(self._stack[-1], dict | _NumpyDtype):
            raise RefusedPickle("the state of an object")

    def _do_binpersid(self, _: Any) -> None:
        storage = _storage_of(self._pop())
        if self._storages.setdefault(storage.key, storage) != storage:
            raise RefusedPickle("one storage with two sizes")
        self._stack.append(storage)


def _set_item(table: dict[Any, Any], key: Any, value: Any) -> None:
    # The hash of a tuple that holds itself twice, many levels deep, never ends.
    if not isinstance(key, str | int | float | bytes | Name | None):
        raise RefusedPickle(f"a table with a {type(key).__name__} as key")
    table[key] = value


def _storage_of(description: Any) -> StorageRef:
    if not isinstance(description, tuple) or len(description) < 5 or description[0] != "storage":
        raise RefusedPickle("a reference to something else than a tensor's bytes")
    kind, key, _, num_elements = description[1:5]
    if not isinstance(kind, Name) or kind.text not in STORAGE_DTYPES:
        raise RefusedPickle("a storage of an unknown kind")
    if not isinstance(key, str) or type(num_elements) is not int or num_elements < 0:
        raise RefusedPickle("a storage without a name or size")
    return StorageRef(key, STORAGE_DTYPES[kind.text], num_elements)
