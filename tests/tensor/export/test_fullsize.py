"""Round trips of models of the published sizes. Minutes and 15 GB of disk: run with -m fullsize."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdft.events import ignore
from sdft.formats.lazy import LazyTensor, block_buffers
from sdft.formats.tensor_file import open_tensor_file
from sdft.jobs.convert import run_convert
from tests.bench.fullsize import write_random_model

PARAMETERS = {"sd1": 1_066_235_307, "sd2-base": 1_303_597_228, "sd2-v": 1_303_597_228}
"""U-Net, VAE and text encoder of the published models; SD 2.x with its unused block, projection
and scale."""


@pytest.fixture(autouse=True)
def only_when_asked_for(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    if "fullsize" not in request.config.getoption("-m"):
        pytest.skip("run with -m fullsize")
    yield
    # pytest keeps the folders of the last runs, which would be 45 GB of these.
    shutil.rmtree(tmp_path)


def bytes_of(tensor: LazyTensor) -> bytes:
    return b"".join(bytes(block) for block in tensor.blocks(block_buffers(1)))


@pytest.mark.fullsize
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["safetensors", "ckpt"])
@pytest.mark.parametrize("family", ["sd1", "sd2-base", "sd2-v"])
def test_a_full_size_model_comes_back_to_the_bit(tmp_path, family, form):
    first = tmp_path / "first"
    write_random_model(first, family=family, dtype="F16", form=form)
    run_convert(first, tmp_path / "folder", form="diffusers_safetensors", emit=ignore)
    run_convert(tmp_path / "folder", tmp_path / "back", form=form, emit=ignore)
    before, after = (
        open_tensor_file(first).all_lazy(),
        open_tensor_file(tmp_path / "back").all_lazy(),
    )
    assert before.keys() == after.keys()
    assert sum(tensor.num_elements for tensor in before.values()) == PARAMETERS[family]
    for name, tensor in before.items():
        assert (after[name].dtype, after[name].shape) == (tensor.dtype, tensor.shape)
        assert bytes_of(after[name]) == bytes_of(tensor), name
