"""Taggers that cannot be used: parts missing or unfit, a runtime too many or none."""

import sys
from importlib import metadata

import onnx
import pytest
from onnx import TensorProto, helper

from sdft.errors import DataError, EnvironmentFault, UserError
from sdft.labelers.onnx_session import installed_runtimes
from sdft.labelers.selection import TagChoice
from sdft.labelers.taggers import open_tagger
from tests.tensor.labelers.onnx_models import save_mapping, save_wd14


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
