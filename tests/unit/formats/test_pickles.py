"""Pickles are read as data: nothing in them runs, and what is no plain weight is refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest

from sdft.errors import DataError
from sdft.formats import pickle_data
from sdft.formats.pickle_data import RefusedPickle, read_pickle
from sdft.formats.tensor_file import open_tensor_file
from sdft.formats.zip_pickle import read_pickled_file
from tests.unit.formats.hostile import described_tensor, write_zip


class Runs:
    """Calls something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_plain_values_are_read_in_every_protocol():
    value = {
        "epoch": 3,
        "loss": 0.25,
        "big": 2**80,
        "negative": -5,
        "yes": True,
        "nothing": None,
        "raw": b"12",
        "text": "naïve 日本",
        "list": [1, (2, 3), {"a": ()}],
        "ordered": OrderedDict(a=1),
    }
    for protocol in (2, 3, 4, 5):
        assert read_pickle(pickle.dumps(value, protocol=protocol))[0] == value


def test_a_tensor_is_found_in_the_file(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", described_tensor(), {"0": b"0123456789abcdef"})
    file = open_tensor_file(path)
    assert file.form == "ckpt"
    assert file.tensors["w"].shape == (4,)
    read = bytearray(16)
    file.lazy("w").read_into(memoryview(read))
    assert read == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("harmful", "named"),
    [
        (Runs(os.system, "touch RAN"), f"{os.name}.system"),
        (Runs(subprocess.call, "touch RAN", None), "subprocess.call"),
        (Runs(eval, "open('RAN', 'w')"), "builtins.eval"),
        (Runs(getattr, "x", "upper"), "builtins.getattr"),
        (os.getcwd, f"{os.name}.getcwd"),
        (subprocess.Popen, "subprocess.Popen"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pickle_that_runs_code_is_refused_by_name_and_nothing_runs(
    tmp_path, monkeypatch, harmful, named
):
    monkeypatch.chdir(tmp_path)
    raw = pickle.dumps({"state_dict": {"w": harmful}}, protocol=4)
    path = write_zip(tmp_path / "a.ckpt", raw)
    with pytest.raises(DataError, match=f'nothing in it was run: it contains "{named}'):
        open_tensor_file(path)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02(ios\nsystem\n.",
        b"\x80\x02(cos\nsystem\no.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02Pname\n.",
        b"\x80\x02K\x01}b.",
        b"\x80\x02U\x01ah\x00.",
        b"\x80\x02(.",
        b"\x80\x02e.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02}",
        b"",
        b"\x80\x02\x8a\xff.",
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01R.",
    ],
)
def test_an_instruction_out_of_place_is_refused(raw):
    with pytest.raises(RefusedPickle):
        read_pickle(raw)


def test_an_empty_table_may_be_made_and_given_a_state():
    assert read_pickle(b"\x80\x02ccollections\nOrderedDict\n)\x81}b.")[0] == {}


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"shape": (5,)}, "reaches beyond its storage"),
        ({"shape": (2, 2), "strides": (4, 1)}, "reaches beyond its storage"),
        ({"shape": (10**12,), "strides": (0,)}, "larger than its storage"),
        ({"num_elements": 10**12, "shape": (10**12,)}, "too few bytes"),
        ({"key": b"1"}, "without bytes"),
        ({"first": -1}, "no proper shape"),
        ({"shape": (-4,)}, "no proper shape"),
        ({"shape": (4,), "strides": (1, 1)}, "no proper shape"),
        ({"storage": b"system"}, '"torch.system"'),
    ],
)
def test_a_tensor_that_claims_more_than_is_there_is_refused(tmp_path, claims, words):
    path = write_zip(tmp_path / "a.ckpt", described_tensor(**claims), {"0": bytes(16)})
    with pytest.raises(DataError, match=words):
        open_tensor_file(path)


def test_a_packed_entry_is_refused_before_it_is_unpacked(tmp_path):
    path = write_zip(
        tmp_path / "a.ckpt",
        described_tensor(),
        {"0": bytes(2**26)},
        compression=zipfile.ZIP_DEFLATED,
    )
    tracemalloc.start()
    with pytest.raises(DataError, match="packed entry"):
        open_tensor_file(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**22


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", described_tensor(), {"0": bytes(16), "1": bytes(16)})
    raw = path.read_bytes()
    # The list at the end is made to say that the second storage lies where the first does.
    second = raw.rindex(b"archive/data/1")
    first = raw.index(b"archive/data/0") - 30
    offset = raw.rindex(b"PK\x01\x02", 0, second) + 42
    path.write_bytes(raw[:offset] + first.to_bytes(4, "little") + raw[offset + 4 :])
    with pytest.raises(DataError, match="overlapping entry"):
        open_tensor_file(path)


def test_a_pickle_of_lists_within_lists_ends_at_once(tmp_path):
    # Each list holds the one before twice: 2 ** 60 entries for who follows them all.
    doubled: list[object] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    path = write_zip(tmp_path / "a.ckpt", {"state_dict": {}, "x": doubled})
    assert open_tensor_file(path).left_out == ("x",)


def test_a_deep_pickle_is_refused(tmp_path):
    raw = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    path = write_zip(tmp_path / "a.ckpt", raw)
    with pytest.raises(DataError, match="without end"):
        read_pickled_file(path)


def test_a_table_keyed_by_nested_pairs_is_refused():
    pair: tuple[object, ...] = ()
    for _ in range(60):
        pair = (pair, pair)
    raw = pickle.dumps(pair, protocol=2)
    with pytest.raises(RefusedPickle, match="tuple as key"):
        read_pickle(b"\x80\x02}" + raw[2:-1] + b"Ns.")


def test_a_pickle_of_endless_small_objects_is_refused(monkeypatch):
    monkeypatch.setattr(pickle_data, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(RefusedPickle, match="more instructions"):
        read_pickle(b"\x80\x02" + b"}" * 2000 + b".")


def test_an_announced_length_is_not_allocated():
    tracemalloc.start()
    with pytest.raises(RefusedPickle):
        read_pickle(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


def test_a_cut_off_archive_is_said_to_be_damaged(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", described_tensor(), {"0": bytes(16)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged or cut off"):
        open_tensor_file(path)


def test_an_archive_of_something_else_is_named(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="not one of torch"):
        open_tensor_file(path)


def test_the_class_that_keys_a_table_in_published_checkpoints_is_let_through(tmp_path):
    name = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    raw = described_tensor()[:-1] + b"U\x09callbacks}" + name + b"K\x01ss."
    path = write_zip(tmp_path / "a.ckpt", raw, {"0": bytes(16)})
    file = open_tensor_file(path)
    assert list(file.tensors) == ["w"]
    assert file.left_out == ("callbacks",)
