"""DeepDanbooru's port to torch: its layers, its network beside torch's own, and what is refused."""

import sys

import numpy as np
import pytest
import torch

from sdft.errors import DataError
from sdft.labelers import danbooru_torch
from sdft.labelers.danbooru_torch import STAGES, forward, open_torch_danbooru, weight_names
from sdft.labelers.selection import TagChoice
from sdft.labelers.taggers import open_tagger
from tests.tensor.labelers.pictures import picture, prepared


def tiny_danbooru(num_tags, seed=0):
    """Weights of the port's shape, 1/32 of its width."""
    generator = torch.Generator().manual_seed(seed)
    weights, number = {}, 0

    def add(outputs, inputs, side, bias=True):
        nonlocal number
        shape = (outputs, inputs, side, side)
        weight = torch.randn(shape, generator=generator) * (2 / (inputs * side * side)) ** 0.5
        weights[f"n_Conv_{number}.weight"] = weight * 0.7
        if bias:
            weights[f"n_Conv_{number}.bias"] = torch.randn(outputs, generator=generator) * 0.01
        number += 1

    add(2, 3, 7)
    width = 2
    inner_widths = (2, 4, 8, 8, 16, 32)
    for stage, ((blocks, _), inner) in enumerate(zip(STAGES, inner_widths, strict=True)):
        outer = 32 if stage == 3 else inner * 4
        for block in range(blocks):
            if block == 0 and stage != 3:
                add(outer, width, 1)
            add(inner, width, 1)
            add(inner, inner, 3)
            add(outer, inner, 1)
            if block == 0 and stage == 3:
                add(outer, width, 1)
            width = outer
    add(num_tags, width, 1, bias=False)
    return weights


def test_the_port_s_layers_are_numbered_as_in_its_file():
    names = weight_names()
    assert len(names) == 178 * 2 + 1
    assert set(names) == set(tiny_danbooru(4))
    # Source: the shapes in the port's file, in 1/32 of its width.
    shapes = {name: tuple(w.shape) for name, w in tiny_danbooru(4).items()}
    assert shapes["n_Conv_11.weight"] == (16, 8, 1, 1)
    assert shapes["n_Conv_36.weight"] == (32, 16, 1, 1)
    assert shapes["n_Conv_98.weight"] == (8, 8, 3, 3)
    assert shapes["n_Conv_100.weight"] == (32, 32, 1, 1)
    assert shapes["n_Conv_158.weight"] == (64, 32, 1, 1)
    assert shapes["n_Conv_168.weight"] == (128, 64, 1, 1)


class Bottleneck(torch.nn.Module):
    def __init__(self, weights, first, shortcut, stride):
        super().__init__()
        self.first, self.shortcut, self.stride, self.weights = first, shortcut, stride, weights

    def conv(self, number, x, stride=1, same=False):
        weight = self.weights[f"n_Conv_{number}.weight"]
        layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride)
        layer.weight.data, layer.bias.data = weight, self.weights[f"n_Conv_{number}.bias"]
        if same:
            # TensorFlow: total padding (ceil(n / s) - 1) * s + k - n, the smaller half first.
            total = (-(-x.shape[2] // stride) - 1) * stride + weight.shape[2] - x.shape[2]
            x = torch.nn.functional.pad(x, (total // 2, total - total // 2) * 2)
        return layer(x)

    def forward(self, x):
        inner = torch.relu(self.conv(self.first, x))
        inner = torch.relu(self.conv(self.first + 1, inner, self.stride, same=True))
        inner = self.conv(self.first + 2, inner)
        past = x if self.shortcut is None else self.conv(self.shortcut, x, self.stride)
        return torch.relu(inner + past)


def test_the_port_s_network_is_a_resnet_with_tensorflow_s_padding():
    weights = tiny_danbooru(5)
    pixels = torch.rand(2, 512, 512, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stem = torch.nn.Conv2d(3, 2, 7, 2)
        stem.weight.data, stem.bias.data = weights["n_Conv_0.weight"], weights["n_Conv_0.bias"]
        x = torch.nn.functional.pad(pixels.permute(0, 3, 1, 2), (2, 3, 2, 3))
        x = torch.nn.functional.pad(torch.relu(stem(x)), (0, 1, 0, 1), value=-1e9)
        x = torch.nn.functional.max_pool2d(x, 3, 2)
        firsts = [(1, 3, 1), (11, 8, 2), (36, 20, 2), (97, 20, 2), (158, 3, 2), (168, 3, 2)]
        for start, blocks, stride in firsts:
            late = start == 97
            x = Bottleneck(weights, start if late else start + 1, 100 if late else start, stride)(x)
            for block in range(1, blocks):
                x = Bottleneck(weights, start + 1 + 3 * block, None, 1)(x)
        x = torch.nn.functional.conv2d(x, weights["n_Conv_178.weight"])
        wanted = torch.sigmoid(x.mean(dim=(2, 3)))
        torch.testing.assert_close(forward(weights, pixels), wanted)


def test_the_port_s_file_tags_pictures_and_leaves_ratings_out(tmp_path):
    tags = ["1girl", "long_hair", "smile", "rating:safe", "rating:explicit"]
    path = tmp_path / "model.pt"
    torch.save({**tiny_danbooru(5), "tags": tags}, path)
    tagger, _ = open_tagger(tmp_path, TagChoice(thresh=0.0), device="cpu")
    picture(tmp_path / "a.png", "RGB", (600, 400))
    image = prepared(tagger, tmp_path / "a.png")
    assert image.pixels.shape == (512, 512, 3)
    assert tagger.label([image]) == [("1girl", "long_hair", "smile")]
    both = tagger.probabilities([image, image])
    np.testing.assert_allclose(both[0], tagger.probabilities([image])[0], rtol=1e-5)


def test_a_damaged_or_foreign_port_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"no torch file")
    with pytest.raises(DataError, match="not a torch file"):
        open_torch_danbooru(path, TagChoice(), "cpu")
    torch.save({"n_Conv_0.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="no list of tags"):
        open_torch_danbooru(path, TagChoice(), "cpu")
    torch.save({"tags": ["a"], "n_Conv_0.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="layers are missing"):
        open_torch_danbooru(path, TagChoice(), "cpu")
    torch.save({"tags": ["a"], **tiny_danbooru(2)}, path)
    with pytest.raises(DataError, match="1 tags for 2 outputs"):
        open_torch_danbooru(path, TagChoice(), "cpu")


class RunsCode:
    def __reduce__(self):
        return (sys.modules["os"].system, ("touch executed",))


def test_a_port_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"tags": RunsCode()}, tmp_path / "model.pt")
    with pytest.raises(DataError, match="read safely"):
        open_torch_danbooru(tmp_path / "model.pt", TagChoice(), "cpu")
    assert not (tmp_path / "executed").exists()
    assert danbooru_torch.NUM_CONVOLUTIONS == 179
