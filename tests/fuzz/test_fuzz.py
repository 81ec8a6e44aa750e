"""Files from anywhere cannot run code, write, exhaust memory, or end in anything but an error.

Each parser gets 300 broken files here, and 20,000 with the marker `long`.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from sdft.cache.npz import read_npz
from sdft.cache.shard import DamagedShard, read_shard, write_shard
from sdft.config.load import load_config
from sdft.config.prompts import read_prompts
from sdft.control import ControlInbox
from sdft.dataset.metadata import read_metadata
from sdft.dataset.metadata_file import read_metadata as read_metadata_file
from sdft.dataset.pixels import decode_rgb
from sdft.dataset.records import WordRules
from sdft.dataset.shard_index import index_of
from sdft.dataset.tar_members import tar_members
from sdft.errors import SdftError
from sdft.events import EventLine
from sdft.formats.safetensors_header import read_header
from sdft.formats.tensor_file import open_tensor_file
from sdft.jobs.training.item_record import _read as read_items
from sdft.rundir import RunDir, read_lock
from sdft.train.plain_tensors import put_together, taken_apart
from sdft.train.state import Identity, Progress, damage, read_optimizer, read_state
from sdft.train.state_write import StateContent, write_state
from tests.fuzz.mutation import fuzz

NUM_CASES = 300
NUM_LONG = 20_000


@dataclass(frozen=True)
class Case:
    """A parser, good files for it, and what it may raise."""

    good: Callable[[Path], list[bytes]]
    """Gets a folder to make them in."""
    parse: Callable[[Path], object]
    name: str = "file"
    """Of the file that is broken."""
    allowed: tuple[type[Exception], ...] = (SdftError,)


def texts(*values: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [value.encode("utf-8") for value in values]


def configs(*values: str) -> Callable[[Path], list[bytes]]:
    """Return configs; the folder of images that they name is there."""

    def make(folder: Path) -> list[bytes]:
        (folder / "images").mkdir(exist_ok=True)
        return [value.replace("IMAGES", str(folder / "images")).encode("utf-8") for value in values]

    return make


def safetensors_files(folder: Path) -> list[bytes]:
    from safetensors.torch import save

    return [
        save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.float16)}),
        save({"x.weight": torch.zeros(1)}, metadata={"format": "pt", "note": "\u3042"}),
    ]


def pickles(folder: Path) -> list[bytes]:
    contents = []
    for number, zipped in enumerate((True, False)):
        path = folder / f"{number}.pt"
        state = {"state_dict": {"a.weight": torch.zeros(2, 3)}, "global_step": 5}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        contents.append(path.read_bytes())
    return contents


def shards(folder: Path) -> list[bytes]:
    path = folder / "good.safetensors"
    write_shard(path, {"k" * 32: ("F16", np.zeros((4, 2, 2), np.float16))})
    return [path.read_bytes()]


def tar_shards(folder: Path) -> list[bytes]:
    packed = []
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=form) as archive:
            for name in ("a.png", "a.txt", "b/" * 60 + "\u3042.png"):
                info = tarfile.TarInfo(name)
                info.size = 700
                archive.addfile(info, BytesIO(bytes(700)))
        packed.append(content.getvalue())
    return packed


def read_tar_shard(path: Path) -> object:
    with path.open("rb") as file:
        return index_of(tar_members(file, path.stat().st_size))


def archives(folder: Path) -> list[bytes]:
    plain, packed = BytesIO(), BytesIO()
    arrays = {
        "latents": np.zeros((4, 8, 8), np.float32),
        "original_size": np.array([64, 64]),
        "crop_ltrb": np.array([0, 0, 64, 64]),
    }
    np.savez(plain, **arrays)
    np.savez_compressed(packed, **arrays)
    with zipfile.ZipFile(packed) as archive:
        assert "latents.npy" in archive.namelist()
    return [plain.getvalue(), packed.getvalue()]


def pictures(folder: Path) -> list[bytes]:
    from PIL import Image

    contents = []
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        buffer = BytesIO()
        Image.new("RGB", (16, 12), "red").save(buffer, form)
        contents.append(buffer.getvalue())
    return contents


def state_content() -> StateContent:
    return StateContent(
        modules={"unet": {"weight": torch.zeros(3)}},
        optimizer={"state": {0: {"m": torch.zeros(3), "step": 1}}, "groups": [{"b": (0.9, 1)}]},
        progress=Progress(step=1, recent_losses=(0.5,), micro_batches=(2,)),
        identity=Identity(parts={"settings": "a"}),
        events_bytes=9,
        settings={"learning_rate": 0.1},
        machine={"threads": "1"},
    )


def state_files(name: str) -> Callable[[Path], list[bytes]]:
    """Return one file of a good state; the others lie beside it."""

    def make(folder: Path) -> list[bytes]:
        state = folder / "step00000001"
        if not state.exists():
            write_state(state, state_content())
        return [(state / name).read_bytes()]

    return make


def read_progress(path: Path) -> object:
    """Read a state's progress as if its manifest bore it out."""
    from sdft.train.state import _json, _progress

    try:
        return _progress(_json(path)["progress"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # What read_state turns into its own error.
        raise SdftError(what=str(error) or "broken") from error


def read_events(path: Path) -> object:
    """Read lines as every reader of a run does; those that are none give None, never an error."""
    found = [EventLine.read(line) for line in path.read_text("utf-8", "replace").splitlines()]
    if None in found:
        raise SdftError(what="a line that is no event")
    return found


def read_run(path: Path) -> object:
    if read_lock(path) is None:
        raise SdftError(what="no lock")
    return None


def read_commands(path: Path) -> object:
    if not ControlInbox(RunDir(path.parent.parent), every_s=0)._waiting_ids():
        return None
    raise SdftError(what="a command is left")


def read_structure(path: Path) -> object:
    tensors, structure = taken_apart(state_content().optimizer)
    del structure
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SdftError(what=str(error) or "too deep") from error
    return put_together(tensors, value, where="here")


STRUCTURE = json.dumps(taken_apart(state_content().optimizer)[1])
EVENTS = "\n".join(
    [
        '{"event": "StepDone", "time": 1.5, "step": 1, "epoch": 1, "loss": 0.5, "lr": 0.1,'
        ' "bucket": [64, 64], "grad_norm": null, "items": 2, "duration_s": 0.1}',
        '{"event": "Notice", "time": 2, "severity": "info", "topic": "x", "message": "y"}',
    ]
)
CONFIG = """
pretrained_model_name_or_path = 'model'
learning_rate = 2e-6
optimizer_args = ["weight_decay=0.1"]
[general]
caption_extension = ".txt"
[[datasets]]
resolution = [512, 768]
batch_size = 2
  [[datasets.subsets]]
  image_dir = 'IMAGES'
  num_repeats = 3
"""
METADATA = '{"a/b": {"caption": "a cat", "tags": "cat, sitting", "train_resolution": [512, 512]}}'

CASES = {
    "safetensors header": Case(safetensors_files, read_header),
    "any file of tensors": Case(
        lambda folder: [*safetensors_files(folder), *pickles(folder)], open_tensor_file
    ),
    "config": Case(configs(CONFIG), lambda path: load_config(path, {}, path.parent), "c.toml"),
    "config as JSON": Case(
        configs(
            '{"learning_rate": 1e-6, "datasets": [{"resolution": 512, "subsets":'
            ' [{"image_dir": "IMAGES"}]}]}'
        ),
        lambda path: load_config(path, {}, path.parent),
        "c.json",
    ),
    "metadata": Case(texts(METADATA), lambda path: read_metadata(path, WordRules()), "m.json"),
    "metadata lines": Case(
        texts('{"image_path": "a.png", "caption": "x"}\n{"image_path": "b.png", "caption": "y"}\n'),
        lambda path: read_metadata(path, WordRules()),
        "m.jsonl",
    ),
    "metadata to edit": Case(texts(METADATA), read_metadata_file, "m.json"),
    "prompts": Case(
        texts("a cat --w 512 --h 768 --d 3 --s 20 --n bad, worse\n# no\na dog --l 7.5"),
        lambda path: read_prompts(path, path.parent),
        "p.txt",
    ),
    "prompts as TOML": Case(
        texts('[prompt]\nwidth = 512\n[[prompt.subset]]\nprompt = "a cat"\nseed = 1\n'),
        lambda path: read_prompts(path, path.parent),
        "p.toml",
    ),
    "prompts as JSON": Case(
        texts(
            '[{"prompt": "a cat", "width": 512, "seed": 3, "enum": 1}]'.replace(', "enum": 1', "")
        ),
        lambda path: read_prompts(path, path.parent),
        "p.json",
    ),
    "events": Case(texts(EVENTS), read_events),
    "run status": Case(
        texts(
            '{"state": "finished", "config_digest": "a", "steps": 1, "epochs": 1, "loss": 0.5,'
            ' "checkpoint": "x"}'
        ),
        lambda path: RunDir(path.parent).read_status(),
        "run.json",
    ),
    "lock": Case(texts('{"pid": 1, "host": "h", "process_started": 1.5}'), read_run, "lock.json"),
    "old latents": Case(
        archives, lambda path: read_npz(path, bucket=(64, 64), size=(64, 64), flip=False), "a.npz"
    ),
    "shard of the cache": Case(shards, read_shard, "s.safetensors", (SdftError, DamagedShard)),
    "tar shard": Case(tar_shards, read_tar_shard, "0.tar"),
    "picture": Case(pictures, decode_rgb, "p.png"),
    "progress of a state": Case(state_files("progress.json"), read_progress, "progress.json"),
    "structure of an optimizer": Case(texts(STRUCTURE), read_structure, "optimizer.json"),
}


def run_case(name: str, folder: Path, num_cases: int, seed: int) -> dict[str, int]:
    case = CASES[name]
    return fuzz(
        case.good(folder),
        case.parse,
        file=folder / case.name,
        allowed=case.allowed,
        num_cases=num_cases,
        seed=seed,
    )


@pytest.mark.parametrize("name", list(CASES))
def test_broken_files_end_in_an_error_that_says_so(name: str, tmp_path: Path) -> None:
    run_case(name, tmp_path, NUM_CASES, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(CASES))
def test_many_broken_files_end_in_an_error_that_says_so(name: str, tmp_path: Path) -> None:
    run_case(name, tmp_path, NUM_LONG, seed=2)


def test_a_broken_state_is_told_whatever_part_is_broken(tmp_path: Path) -> None:
    state = tmp_path / "step00000001"
    write_state(state, state_content())
    whole = {path.name: path.read_bytes() for path in state.iterdir()}
    for number, name in enumerate(sorted(whole)):

        def parse(path: Path) -> None:
            problem = damage(state)
            if not problem:
                read_state(state)
                read_optimizer(state)
            else:
                raise SdftError(what=problem)

        counts = fuzz(
            [whole[name]],
            parse,
            file=state / name,
            allowed=(SdftError,),
            num_cases=60,
            seed=number,
        )
        # Mutations that change nothing are the only ones that pass.
        assert counts["taken"] <= 10
        (state / name).write_bytes(whole[name])


def test_a_record_of_items_that_is_broken_raises_what_its_reader_expects(tmp_path: Path) -> None:
    import gzip
    import zlib

    good = gzip.compress(b'["0.0 a", "w", "p", 1]\n["0.0 b", "w", "p", 2]\n')
    fuzz(
        [good],
        read_items,
        file=tmp_path / "i.jsonl.gz",
        allowed=(SdftError, OSError, ValueError, TypeError, EOFError, zlib.error),
        num_cases=NUM_CASES,
        seed=1,
    )
