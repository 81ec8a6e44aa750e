"""Taggers whose model is an ONNX file: WD14 v1 to v3, the tag_mapping form, DeepDanbooru.

In: a folder with the model and its table. Out: a Labeler. The forms differ in the pixels that they
want and in what their outputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdft.errors import DataError
from sdft.labelers.onnx_session import OnnxModel, open_model
from sdft.labelers.preprocess import edge_filled, white_square
from sdft.labelers.records import Prepared, Words
from sdft.labelers.selection import TagChoice, TagSelector
from sdft.labelers.vocabulary import (
    TagTable,
    read_selected_tags,
    read_tag_lines,
    read_tag_mapping,
)

FloatBatch = npt.NDArray[np.float32]

FIRST_BATCH_CPU = 8
FIRST_BATCH_GPU = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one kind of tagger wants its pictures and what its outputs are."""

    name: str
    table_file: str
    read_table: Callable[[Path], TagTable]
    order: str
    """Of the selected tags, see TagSelector."""
    white: bool
    """A white border around the picture; else its edge pixels repeated."""
    scale: Callable[[FloatBatch], FloatBatch]
    """From RGB levels 0..255 to what the model was trained on."""
    is_logits: bool
    default_thresh: float


WD14 = Form(
    name="WD14",
    table_file="selected_tags.csv",
    read_table=read_selected_tags,
    order="csv",
    white=True,
    scale=lambda levels_BHWC: levels_BHWC[..., ::-1],
    is_logits=False,
    default_thresh=0.35,
)
"""BGR, 0..255. Source: reference section 1.5."""

TAG_MAPPING = Form(
    name="tag_mapping",
    table_file="tag_mapping.json",
    read_table=read_tag_mapping,
    order="mapping",
    white=True,
    scale=lambda levels_BHWC: levels_BHWC[..., ::-1] / np.float32(127.5) - np.float32(1),
    is_logits=True,
    default_thresh=0.35,
)
"""BGR, -1..1. Source: reference section 1.5."""

DEEPDANBOORU = Form(
    name="DeepDanbooru",
    table_file="tags.txt",
    read_table=read_tag_lines,
    order="danbooru",
    white=False,
    scale=lambda levels_BHWC: levels_BHWC / np.float32(255),
    is_logits=False,
    default_thresh=0.5,
)
"""RGB, 0..1. Source: reference, other-formats."""


class OnnxTagger:
    """A Labeler of one ONNX model and its table."""

    def __init__(self, form: Form, model: OnnxModel, table: TagTable, choice: TagChoice) -> None:
        self._form = form
        self._model = model
        self._selector = TagSelector(table, choice, form.order, form.default_thresh)

    @property
    def title(self) -> str:
        return f"{self._form.name} tagger on {self._model.device}"

    @property
    def fixed_batch(self) -> int | None:
        return self._model.batch

    @property
    def first_batch(self) -> int:
        return FIRST_BATCH_CPU if self._model.device == "cpu" else FIRST_BATCH_GPU

    def prepare(self, rgb_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        model = self._model
        if self._form.white:
            return white_square(rgb_HWC, model.height)
        return edge_filled(rgb_HWC, model.height, model.width, by="area")

    def model_input(self, batch: Sequence[Prepared]) -> FloatBatch:
        """Return what the model gets. Shapes: [B, H, W, 3] or [B, 3, H, W]."""
        levels_BHWC = np.stack([image.pixels for image in batch]).astype(np.float32)
        scaled_BHWC = self._form.scale(levels_BHWC)
        wants_NCHW = self._model.channels_first
        return np.ascontiguousarray(
            scaled_BHWC.transpose(0, 3, 1, 2) if wants_NCHW else scaled_BHWC, dtype=np.float32
        )

    def probabilities(self, batch: Sequence[Prepared]) -> FloatBatch:
        """Shapes: [B, T] out."""
        images = self.model_input(batch)
        num_missing = (self._model.batch or len(batch)) - len(batch)
        assert num_missing >= 0, "more images than the model takes at once"
        padding = np.zeros((num_missing, *images.shape[1:]), dtype=np.float32)
        outputs_BT = self._model.run(np.concatenate([images, padding]))[: len(batch)]
        return _sigmoid(outputs_BT) if self._form.is_logits else outputs_BT

    def label(self, batch: Sequence[Prepared]) -> list[Words]:
        return [tuple(self._selector.tags(row_T)) for row_T in self.probabilities(batch)]


def open_wd14(model_file: Path, choice: TagChoice, device: str) -> tuple[OnnxTagger, str]:
    return open_onnx_tagger(WD14, model_file, choice, device)


def open_tag_mapping(model_file: Path, choice: TagChoice, device: str) -> tuple[OnnxTagger, str]:
    return open_onnx_tagger(TAG_MAPPING, model_file, choice, device)


def open_deepdanbooru(model_file: Path, choice: TagChoice, device: str) -> tuple[OnnxTagger, str]:
    return open_onnx_tagger(DEEPDANBOORU, model_file, choice, device)


def open_onnx_tagger(
    form: Form, model_file: Path, choice: TagChoice, device: str
) -> tuple[OnnxTagger, str]:
    """Open a model and the table beside it; return it with a note about the device.

    Raises: DataError where the table is absent or does not fit the model.
    """
    table_file = model_file.with_name(form.table_file)
    if not table_file.is_file():
        raise DataError(
            what=f"the model's table {form.table_file} is missing",
            where=str(model_file.parent),
            fix="it says what the outputs mean; download it from where the model came from",
        )
    table = form.read_table(table_file)
    model = open_model(model_file, device)
    if model.num_outputs != len(table.names):
        raise DataError(
            what=f"the table has {len(table.names)} tags, the model {model.num_outputs} outputs",
            where=str(table_file),
            fix=f"take the {form.table_file} that belongs to this model",
        )
    if form.white and model.height != model.width:
        raise DataError(
            what=f"the model takes {model.width} x {model.height} px, which is no square",
            where=str(model_file),
        )
    return OnnxTagger(form, model, table, choice), model.note


def _sigmoid(logits: FloatBatch) -> FloatBatch:
    # Clipped where float32 is 0 or 1 anyway, because exp would overflow.
    probabilities: FloatBatch = np.float32(1) / (np.float32(1) + np.exp(-logits.clip(-80, 80)))
    return probabilities
