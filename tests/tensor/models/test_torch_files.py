"""Files that torch.save wrote are read as torch.load reads them, without torch.load."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdft.errors import DataError
from sdft.formats.zip_pickle_write import write_pickled_weights
from sdft.models.checkpoint import MemoryTensors, cast, open_tensors, read

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "half": torch.randn(5, generator=torch.Generator().manual_seed(0)).half(),
    "brain": torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "double": torch.tensor([1.5, -2.5], dtype=torch.float64),
    "long": torch.arange(7),
    "flags": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "part": torch.arange(100.0)[10:20:3],
}


def all_of(path):
    file = open_tensors(path)
    return {name: read(file.lazy(name)) for name in file.tensors}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("nested", [True, False])
def test_what_torch_saved_is_read(tmp_path, old, protocol, nested):
    path = tmp_path / "a.ckpt"
    saved = TENSORS | {"parameter": torch.nn.Parameter(torch.ones(3))}
    value = {"state_dict": saved, "global_step": 7} if nested else saved
    torch.save(value, path, _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    assert_same(all_of(path), TENSORS | {"parameter": torch.ones(3)})
    assert open_tensors(path).scalars == ({"global_step": 7} if nested else {})


def test_a_module_s_own_state_dict_is_read(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "a.bin")
    assert_same(all_of(tmp_path / "a.bin"), module.state_dict())


def test_tensors_that_share_their_bytes_are_read_each(tmp_path):
    whole = torch.arange(10.0)
    torch.save({"whole": whole, "tail": whole[4:]}, tmp_path / "a.ckpt")
    assert_same(all_of(tmp_path / "a.ckpt"), {"whole": whole, "tail": whole[4:]})


def test_a_training_checkpoint_gives_its_weights_and_names_what_else_it_holds(tmp_path):
    weight = torch.nn.Parameter(torch.randn(3, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    value = {
        "state_dict": {"w": weight.detach()},
        "epoch": 2,
        "loss": np.float64(0.25),
        "optimizer_states": [optimizer.state_dict()],
    }
    torch.save(value, tmp_path / "a.ckpt")
    file = open_tensors(tmp_path / "a.ckpt")
    assert_same(all_of(tmp_path / "a.ckpt"), {"w": weight.detach()})
    assert file.scalars == {"epoch": 2, "loss": 0.25}
    assert file.left_out == ("optimizer_states",)


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.ckpt")
    with pytest.raises(DataError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_tensors(tmp_path / "a.ckpt")


@pytest.mark.parametrize("cut", [100, 2000])
@pytest.mark.parametrize("old", [False, True])
def test_a_cut_off_file_is_said_to_be_cut_off(tmp_path, cut, old):
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.randn(1000)}, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="cut off"):
        open_tensors(path)


def test_what_is_written_loads_in_torch_without_its_unpickler_being_trusted(tmp_path):
    path = tmp_path / "a.ckpt"
    scalars = {"epoch": 3, "big": 2**40, "loss": 0.5, "name": "naïve", "on": True, "none": None}
    with path.open("wb") as file:
        write_pickled_weights(file, MemoryTensors(TENSORS).all_lazy(), scalars=scalars)
    for mapped in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mapped)
        assert_same(loaded.pop("state_dict"), TENSORS)
        assert loaded == scalars
    assert_same(all_of(path), TENSORS)


def test_each_tensor_written_begins_at_a_multiple_of_64_bytes(tmp_path):
    path = tmp_path / "a.ckpt"
    with path.open("wb") as file:
        write_pickled_weights(file, MemoryTensors(TENSORS).all_lazy(), scalars=None)
    infos = open_tensors(path).tensors.values()
    assert {info.offset % 64 for info in infos if info.num_bytes} == {0}


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_cast_equals_torch_s_own(dtype):
    torch_dtype = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[dtype]
    for name, lazy in MemoryTensors(TENSORS).all_lazy().items():
        expected = TENSORS[name]
        if expected.is_floating_point():
            expected = expected.to(torch_dtype)
        assert torch.equal(read(cast(lazy, dtype)), expected)


def test_a_number_too_large_for_fp16_is_reported():
    overflowed = []
    values = {
        "fits": [65504.0],
        "rounds": [65519.0],
        "over": [-70000.0],
        "nan": [float("nan"), 7e4],
    }
    tensors = {name: torch.tensor(value) for name, value in values.items()}
    tensors["infinite"] = torch.tensor([float("inf")])
    for name, lazy in MemoryTensors(tensors).all_lazy().items():
        read(cast(lazy, "F16", lambda name=name: overflowed.append(name)))
    assert overflowed == ["over", "nan"]
