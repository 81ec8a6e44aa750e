"""A safetensors header is believed only where the file bears it out."""

from __future__ import annotations

import pytest

from sdft.errors import DataError
from sdft.formats.safetensors_header import read_header
from sdft.formats.tensor_file import open_tensor_file
from tests.unit.formats.hostile import write_raw_header, write_zeros

ONE = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def test_a_written_file_is_read_back_with_its_metadata(tmp_path):
    path = write_zeros(tmp_path / "a", {"w": (2, 3), "b": (), "none": (0, 7)}, title="x")
    header = read_header(path)
    assert {name: info.shape for name, info in header.tensors.items()} == {
        "w": (2, 3),
        "b": (),
        "none": (0, 7),
    }
    assert header.metadata == {"title": "x"}
    assert header.data_start % 8 == 0


def test_tensors_of_wider_numbers_come_first_so_that_each_is_aligned(tmp_path):
    path = write_zeros(tmp_path / "a", {"odd": (3,), "even": (2,)})
    header = read_header(path)
    assert [info.offset % 2 for info in header.tensors.values()] == [0, 0]


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"w": ONE}, b"0" * 11, "cut off"),
        ({"w": ONE}, b"0" * 13, "belong to no tensor"),
        ({"w": ONE | {"data_offsets": [0, 10]}}, b"0" * 10, "takes 12 bytes and is given 10"),
        ({"w": ONE, "v": ONE}, b"0" * 12, "overlaps"),
        ({"w": ONE | {"data_offsets": [4, 16]}}, b"0" * 16, "leaves a gap"),
        ({"w": ONE | {"dtype": "F12"}}, b"0" * 12, "unknown dtype"),
        ({"w": ONE | {"shape": [-2, -3]}}, b"0" * 12, "no proper shape"),
        ({"w": ONE | {"shape": [True, 6]}}, b"0" * 12, "no proper shape"),
        ({"w": ONE | {"shape": [2**40, 2**40]}}, b"0" * 12, "is given 12"),
        ({"w": [1]}, b"", "no description"),
        ({"__metadata__": {"a": 1}}, b"", "not a table of texts"),
        (b"{nonsense", b"", "not JSON"),
        (b'{"w": 1, "w": 2}', b"", "twice"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"", "not JSON"),
    ],
)
def test_a_lying_header_is_named(tmp_path, header, data, words):
    with pytest.raises(DataError, match=words):
        open_tensor_file(write_raw_header(tmp_path / "a", header, data))


def test_a_header_longer_than_the_file_is_a_file_cut_off(tmp_path):
    path = tmp_path / "a"
    path.write_bytes((5000).to_bytes(8, "little") + b'{"w": ')
    with pytest.raises(DataError, match="cut off: it says that it has 5008 bytes, 14 are there"):
        open_tensor_file(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this file is empty"),
        (bytes(range(256)) * 8, "this is no model file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\xff" * 7 + b"\x7f{", "this is no model file"),
    ],
)
def test_what_is_no_model_is_told_by_its_content_not_its_name(tmp_path, content, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_tensor_file(path)
