"""Taggers on real ONNX files: what the model sees, what it says, and models that do not fit."""

import sys
from importlib import metadata

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image, ImageOps

from sdft.dataset.pixels import decode_rgb
from sdft.errors import DataError, EnvironmentFault, UserError
from sdft.labelers import danbooru_torch
from sdft.labelers.danbooru_torch import STAGES, forward, open_torch_danbooru, weight_names
from sdft.labelers.onnx_session import installed_runtimes
from sdft.labelers.preprocess import white_square
from sdft.labelers.records import Prepared
from sdft.labelers.selection import TagChoice
from sdft.labelers.taggers import open_tagger
from tests.tensor.labelers.onnx_models import (
    MAPPING_ROWS,
    WD14_ROWS,
    expected,
    save_danbooru,
    save_mapping,
    save_wd14,
)

SIZES = [(700, 500), (449, 900), (448, 448), (447, 300), (1, 300), (2000, 1), (31, 7), (896, 896)]
"""Even, odd, one pixel wide, exactly the model's size, an exact multiple of it."""

MODES = ["RGB", "RGBA", "P", "PA", "L", "LA"]


def picture(path, mode, size, seed=0, orientation=None):
    draw = np.random.default_rng((seed, *size))
    width, height = size
    rgba = draw.integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(rgba)
    if mode == "PA":
        paletted = image.convert("RGB").convert("P")
        paletted.save(path, transparency=3)
        return
    image = image.convert(mode)
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation is not None else {}))


def upright_on_white(path):
    """The picture by Pillow's own means: turned, transparent parts on white."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def opencv_square(rgb, side):
    """Return the reference's preprocessing and whether it averaged areas."""
    height, width = rgb.shape[:2]
    full = max(height, width)
    top, left = (full - height) // 2, (full - width) // 2
    square = cv2.copyMakeBorder(
        np.ascontiguousarray(rgb[:, :, ::-1]),
        top,
        full - height - top,
        left,
        full - width - left,
        cv2.BORDER_CONSTANT,
        value=(255, 255, 255),
    )
    if full >= side:
        return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), full > side
    enlarged = Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(enlarged), False


def prepared(tagger, path):
    return Prepared(key=path.name, pixels=tagger.prepare(decode_rgb(path)))


@pytest.fixture(scope="module")
def wd14(module_folder):
    folder = save_wd14(module_folder("wd14"))
    return open_tagger(folder, TagChoice())[0]


@pytest.mark.parametrize("mode", MODES)
def test_wd14_sees_what_opencv_makes_of_the_picture(tmp_path, wd14, mode):
    for size in SIZES:
        path = tmp_path / f"{mode}-{size[0]}x{size[1]}.png"
        picture(path, mode, size)
        wanted, averaged = opencv_square(upright_on_white(path), 448)
        (seen,) = wd14.model_input([prepared(wd14, path)])
        assert seen.dtype == np.float32
        difference = np.abs(seen - wanted.astype(np.float32)).max()
        assert difference <= (1 if averaged else 0), (mode, size, difference)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_wd14_sees_a_turned_picture_upright(tmp_path, wd14, orientation):
    path = tmp_path / "turned.png"
    picture(path, "RGB", (300, 200), orientation=orientation)
    wanted, _ = opencv_square(upright_on_white(path), 448)
    (seen,) = wd14.model_input([prepared(wd14, path)])
    assert np.array_equal(seen, wanted.astype(np.float32))


def test_a_strip_of_30_000_px_needs_no_square_of_gigabytes(wd14):
    for shape in ((3, 30_000, 3), (30_000, 3, 3)):
        square = wd14.prepare(np.zeros(shape, dtype=np.uint8))
        square = square if shape[0] == 3 else square.transpose(1, 0, 2)
        assert square.shape == (448, 448, 3)
        assert (square[:223] == 255).all()
        assert (square[225:] == 255).all()
        # The strip lies on the border of two rows of 67 px each; 2 of its 3 px are in one.
        assert square.min() == 247


def test_a_side_that_shrinks_first_gives_the_same_picture(monkeypatch):
    draw = np.random.default_rng(0)
    for shape in ((600, 901, 3), (901, 600, 3), (900, 900, 3)):
        rgb = draw.integers(0, 256, shape, dtype=np.uint8)
        monkeypatch.setattr("sdft.labelers.preprocess.MAX_SQUARE_PX", 8192)
        at_once = white_square(rgb, 448).astype(int)
        monkeypatch.setattr("sdft.labelers.preprocess.MAX_SQUARE_PX", 500)
        assert np.abs(white_square(rgb, 448) - at_once).max() <= 1


def test_the_mapping_form_gets_channels_first_from_minus_one_to_one(tmp_path):
    tagger, _ = open_tagger(save_mapping(tmp_path / "m"), TagChoice())
    path = tmp_path / "a.png"
    picture(path, "RGBA", (200, 447))
    wanted, _ = opencv_square(upright_on_white(path), 448)
    (seen,) = tagger.model_input([prepared(tagger, path)])
    levels = wanted.transpose(2, 0, 1).astype(np.float32)
    assert np.array_equal(seen, levels / np.float32(127.5) - np.float32(1))


def test_deepdanbooru_gets_the_picture_fitted_with_its_edges_repeated(tmp_path):
    tagger, _ = open_tagger(save_danbooru(tmp_path / "d"), TagChoice())
    for size in [(1024, 700), (640, 901), (512, 512)]:
        path = tmp_path / f"{size[0]}.png"
        picture(path, "RGB", size)
        rgb = upright_on_white(path)
        scale = min(512 / size[0], 512 / size[1])
        fitted = cv2.resize(
            rgb, (round(size[0] * scale), round(size[1] * scale)), interpolation=cv2.INTER_AREA
        )
        height, width = fitted.shape[:2]
        top, left = (512 - height) // 2, (512 - width) // 2
        wanted = cv2.copyMakeBorder(
            fitted, top, 512 - height - top, left, 512 - width - left, cv2.BORDER_REPLICATE
        )
        (seen,) = tagger.model_input([prepared(tagger, path)])
        difference = np.abs(seen - wanted.astype(np.float32) / np.float32(255)).max()
        assert difference <= (0 if scale == 1 else 1.001 / 255)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_probabilities_are_the_model_s_whatever_its_batch(tmp_path, batch):
    tagger, _ = open_tagger(save_wd14(tmp_path / "w", batch=batch), TagChoice())
    assert tagger.fixed_batch == batch
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        picture(path, "RGB", (40 + n, 30), seed=n)
    images = [prepared(tagger, path) for path in paths]
    groups = [[image] for image in images] if batch == 1 else [images]
    said = np.concatenate([tagger.probabilities(group) for group in groups])
    seen = np.concatenate([tagger.model_input(group) for group in groups])
    # Runtimes sum 200,000 levels in float32, each in its own order.
    np.testing.assert_allclose(said, expected(seen, len(WD14_ROWS)), atol=1e-3)


def test_logits_of_the_mapping_form_become_probabilities(tmp_path):
    tagger, _ = open_tagger(save_mapping(tmp_path / "m"), TagChoice())
    path = tmp_path / "a.png"
    picture(path, "RGB", (64, 64))
    image = prepared(tagger, path)
    seen = tagger.model_input([image]).transpose(0, 2, 3, 1)
    said = tagger.probabilities([image])
    np.testing.assert_allclose(said, expected(seen, len(MAPPING_ROWS)), atol=1e-3)


def test_tags_come_out_of_the_whole_way(tmp_path):
    choice = TagChoice(thresh=0.0, use_rating_tags=True, thresholds={"character": 2})
    tagger, note = open_tagger(save_wd14(tmp_path / "w"), choice, device="cpu")
    path = tmp_path / "a.png"
    picture(path, "RGB", (64, 64))
    ((rating, *tags),) = tagger.label([prepared(tagger, path)])
    assert rating in {name for name, category in WD14_ROWS if category == 9}
    assert tags == [name for name, category in WD14_ROWS if category == 0]
    assert (tagger.title, note) == ("WD14 tagger on cpu", "")


def test_each_default_threshold_is_its_form_s(tmp_path):
    for folder, thresh in ((save_wd14(tmp_path / "w"), 0.35), (save_danbooru(tmp_path / "d"), 0.5)):
        path = tmp_path / "a.png"
        picture(path, "RGB", (64, 64))
        by_default, _ = open_tagger(folder, TagChoice())
        named, _ = open_tagger(folder, TagChoice(thresh=thresh))
        image = prepared(named, path)
        assert by_default.label([image]) == named.label([image])


# What does not fit


def test_a_folder_without_its_csv_is_named(tmp_path):
    (save_wd14(tmp_path / "w") / "selected_tags.csv").unlink()
    with pytest.raises(DataError, match="table of tags is missing"):
        open_tagger(tmp_path / "w", TagChoice())
    with pytest.raises(DataError, match=r"selected_tags\.csv is missing"):
        open_tagger(tmp_path / "w", TagChoice(), kind="wd14")


def test_a_csv_that_does_not_fit_the_outputs_is_named(tmp_path):
    table = save_wd14(tmp_path / "w") / "selected_tags.csv"
    table.write_text(table.read_text() + "99,extra,0,1\n")
    with pytest.raises(DataError, match="the table has 12 tags, the model 11 outputs"):
        open_tagger(tmp_path / "w", TagChoice())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is missing or the table is empty"),
        ("id,label\n1,x\n", "the column category, name is missing"),
        ("tag_id,name,category,count\n1,x,7,1\n", r"selected_tags\.csv:2"),
        ("tag_id,name,category,count\n1,x", "not a tag row"),
    ],
)
def test_a_broken_csv_is_named(tmp_path, content, message):
    (save_wd14(tmp_path / "w") / "selected_tags.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        open_tagger(tmp_path / "w", TagChoice())


@pytest.mark.parametrize("content", ["[]", "{", '{"0": {"tag": "x"}}', '{"1": {}}'])
def test_a_broken_mapping_is_named(tmp_path, content):
    (save_mapping(tmp_path / "m") / "tag_mapping.json").write_text(content)
    with pytest.raises(DataError, match=r"tag_mapping\.json"):
        open_tagger(tmp_path / "m", TagChoice())


def test_a_model_of_another_shape_is_refused(tmp_path):
    folder = save_wd14(tmp_path / "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "no tagger",
        [value("x", TensorProto.FLOAT, ["n", 16])],
        [value("y", TensorProto.FLOAT, ["n", 16])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, str(folder / "model.onnx"))
    with pytest.raises(DataError, match="not a tagger: it takes"):
        open_tagger(folder, TagChoice())
    (folder / "model.onnx").write_bytes(b"no model at all")
    with pytest.raises(DataError, match="not a model that onnxruntime"):
        open_tagger(folder, TagChoice())


def test_a_model_that_takes_no_square_is_refused(tmp_path):
    folder = save_wd14(tmp_path / "w")
    model = onnx.load(str(folder / "model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 300
    onnx.save(model, str(folder / "model.onnx"))
    with pytest.raises(DataError, match="no square"):
        open_tagger(folder, TagChoice())


def test_a_keras_model_is_answered_with_the_way_to_export_it(tmp_path):
    (tmp_path / "model-resnet_custom_v3.h5").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "model-resnet_custom_v3.h5"):
        with pytest.raises(UserError, match="tf2onnx"):
            open_tagger(path, TagChoice())


def test_an_empty_folder_and_an_unknown_device_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tagger here"):
        open_tagger(tmp_path / "empty", TagChoice())
    folder = save_wd14(tmp_path / "w")
    with pytest.raises(UserError, match="no device"):
        open_tagger(folder, TagChoice(), device="tpu")
    with pytest.raises(UserError, match="has no directml"):
        open_tagger(folder, TagChoice(), device="directml")


def fake_package(site, name):
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_two_runtimes_at_once_are_named_as_the_conflict_they_are(tmp_path, monkeypatch):
    fake_package(tmp_path / "site", "onnxruntime-gpu")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert installed_runtimes() == ["onnxruntime", "onnxruntime-gpu"]
    with pytest.raises(EnvironmentFault, match="write over each other") as error:
        open_tagger(save_wd14(tmp_path / "w"), TagChoice())
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(error.value)


def test_a_missing_runtime_is_answered_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", _nothing_installed)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnvironmentFault, match="pip install"):
        open_tagger(save_wd14(tmp_path / "w"), TagChoice())


def _nothing_installed(name):
    raise metadata.PackageNotFoundError(name)


# DeepDanbooru's port to torch


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
