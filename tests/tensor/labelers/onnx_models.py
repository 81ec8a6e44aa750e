"""ONNX taggers small enough to be made in a test, with the real ones' inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WD14_ROWS = [
    *[(name, 9) for name in ("general", "sensitive", "questionable", "explicit")],
    *[(name, 0) for name in ("1girl", "long_hair", "^_^", "blue_sky", "solo")],
    *[(name, 4) for name in ("hatsune_miku", "saber_(fate)")],
]
MAPPING_ROWS = [
    ("general", "Rating"),
    ("explicit", "Rating"),
    ("1girl", "General"),
    ("blue_sky", "General"),
    ("hatsune_miku", "Character"),
    ("vocaloid", "Copyright"),
    ("best_quality", "Quality"),
]
DANBOORU_TAGS = ["1girl", "long_hair", "hatsune_miku", "rating:safe", "rating:explicit"]


def weights(num_outputs, seed=5):
    draw = np.random.default_rng(seed)
    return (
        draw.normal(0, 0.02, (3, num_outputs)).astype(np.float32),
        draw.normal(0, 0.5, num_outputs).astype(np.float32),
    )


def save_model(path, num_outputs, *, side=448, batch=None, channels_first=False, logits=False):
    """Write a tagger whose outputs are a linear function of the mean colour of each picture."""
    shape = [batch or "batch", side, side, 3]
    if channels_first:
        shape = [batch or "batch", 3, side, side]
    matrix, bias = weights(num_outputs)
    pooled = helper.make_node(
        "ReduceMean", ["input"], ["mean"], axes=[2, 3] if channels_first else [1, 2], keepdims=0
    )
    nodes = [
        pooled,
        helper.make_node("MatMul", ["mean", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["output" if logits else "sum"]),
    ]
    if not logits:
        nodes.append(helper.make_node("Sigmoid", ["sum"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], num_outputs])],
        [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(bias, "bias")],
    )
    # Versions that every onnxruntime of the last years knows.
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)], producer_name="test"
    )
    onnx.save(model, str(path))


def expected(images_NHWC, num_outputs):
    """What the model says of a batch, by numpy."""
    matrix, bias = weights(num_outputs)
    sums = images_NHWC.astype(np.float64).mean(axis=(1, 2)) @ matrix + bias
    return 1 / (1 + np.exp(-sums))


def save_wd14(folder: Path, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model.onnx", len(WD14_ROWS), **options)
    lines = [f"{n},{name},{category},1" for n, (name, category) in enumerate(WD14_ROWS)]
    table = "\n".join(["tag_id,name,category,count", *lines, ""])
    (folder / "selected_tags.csv").write_text(table)
    return folder


def save_mapping(folder: Path, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model_optimized.onnx"
    save_model(path, len(MAPPING_ROWS), channels_first=True, logits=True, **options)
    table = {str(n): {"tag": tag, "category": kind} for n, (tag, kind) in enumerate(MAPPING_ROWS)}
    (folder / "tag_mapping.json").write_text(json.dumps(table))
    return folder


def save_danbooru(folder: Path, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "deepdanbooru.onnx", len(DANBOORU_TAGS), side=512, **options)
    (folder / "tags.txt").write_text("\n".join(DANBOORU_TAGS) + "\n")
    (folder / "tags-character.txt").write_text("hatsune_miku\n")
    return folder
