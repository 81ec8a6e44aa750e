"""`sdft tag` and `sdft caption` by several processes: the same words as by one."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from sdft.events import StageFinished, StageProgress, StageStarted
from sdft.jobs.tag import run_tag
from sdft.labelers.selection import TagChoice
from tests.cli.commands import sdft
from tests.cli.odd_taggers import DEADLY, PIDS, open_a_mortal_one, open_and_leave_a_file
from tests.tensor.labelers.onnx_models import save_wd14
from tests.tensor.labelers.tiny_captioners import save_blip

NUM_IMAGES = 9


@pytest.fixture(scope="module")
def model(module_folder):
    return save_wd14(module_folder("wd14"))


@pytest.fixture(scope="module")
def images(module_folder):
    folder = module_folder("images")
    draw = np.random.default_rng(2)
    for n in range(NUM_IMAGES):
        pixels = draw.integers(0, 256, (24, 24 + n % 7, 3), dtype=np.uint8)
        Image.fromarray(pixels // np.uint8(1 + n % 3 * 4)).save(folder / f"{n}.png")
    (folder / "broken.png").write_bytes((folder / "3.png").read_bytes()[:60])
    return folder


@pytest.fixture
def folder(images, tmp_path):
    return shutil.copytree(images, tmp_path / "set")


def words(folder, suffix=".txt"):
    return {path.name: path.read_bytes() for path in folder.glob(f"*{suffix}")}


@pytest.fixture
def by_one(images, model, tmp_path, capsys):
    """Return the words, and the result, of one process."""
    folder = shutil.copytree(images, tmp_path / "one")
    code, result, _ = sdft(capsys, "tag", folder, "--model", model, "--thresh", 0.3, "--json")
    assert (code, result["labelled"], result["rejected"]) == (0, NUM_IMAGES, 1)
    return words(folder), result


def test_two_processes_tag_as_one_does_and_say_how_far_all_are(
    folder, model, by_one, tmp_path, monkeypatch
):
    (tmp_path / "pids").mkdir()
    monkeypatch.setenv(PIDS, str(tmp_path / "pids"))
    monkeypatch.setattr("sdft.jobs.tag.open_tagger", open_and_leave_a_file)
    said = []
    result = run_tag(
        [str(folder)],
        choice=TagChoice(thresh=0.3),
        model=str(model),
        device="cpu",
        batch_size=2,
        num_processes=2,
        emit=said.append,
    ).as_json()
    pids = {path.name for path in (tmp_path / "pids").iterdir()}
    assert len(pids) == 2
    assert str(os.getpid()) not in pids
    expected_words, expected = by_one
    assert words(folder) == expected_words
    for name in ("images", "labelled", "finished", "kept", "rejected"):
        assert result[name] == expected[name]
    assert [problem["what"] for problem in result["problems"]] == [
        problem["what"] for problem in expected["problems"]
    ]
    started = [one.total for one in said if isinstance(one, StageStarted)]
    assert started == [NUM_IMAGES + 1]
    done = [one.done for one in said if isinstance(one, StageProgress)]
    assert done == sorted(done)
    assert done[-1] >= NUM_IMAGES
    assert [one.done for one in said if isinstance(one, StageFinished)] == [NUM_IMAGES + 1]


@pytest.mark.skipif(os.name == "nt", reason="no process is killed like this there")
def test_what_a_killed_process_left_is_done_at_the_next_start(
    folder, model, by_one, monkeypatch, capsys
):
    base = ("tag", folder, "--model", model, "--thresh", 0.3, "--batch_size", 2)
    line = (*base, "--num_processes", 2)
    with monkeypatch.context() as patch:
        patch.setenv(DEADLY, "5.png")
        patch.setattr("sdft.jobs.tag.open_tagger", open_a_mortal_one)
        code, _, err = sdft(capsys, *line)
    assert code == 3
    assert "process 1 of 2 was killed by SIGKILL" in err
    assert "the same command goes on from here" in err
    written = words(folder)
    assert 0 < len(written) < NUM_IMAGES
    expected, _ = by_one
    assert written == {name: expected[name] for name in written}
    code, result, _ = sdft(capsys, *line, "--json")
    assert (code, result["finished"]) == (0, len(written))
    assert result["labelled"] == NUM_IMAGES - len(written)
    assert words(folder) == expected
    # Both starts are one command to whoever takes it back.
    code, result, _ = sdft(capsys, "metadata", "undo", folder, "--json")
    assert len(result["new"]) == NUM_IMAGES


@pytest.mark.long
def test_a_table_by_two_processes_is_that_by_one(folder, images, model, tmp_path, capsys):
    tables = []
    for number in (1, 2):
        table = tmp_path / f"{number}.json"
        line = ("tag", folder, "--model", model, "--output_path", table)
        assert sdft(capsys, *line, "--num_processes", number)[0] == 0
        tables.append(json.loads(table.read_text("utf-8")))
    assert tables[0] == tables[1]
    assert list(tables[0]) == list(tables[1])
    assert len(tables[0]) == NUM_IMAGES


@pytest.mark.long
def test_two_processes_caption_as_one_does(images, tmp_path, capsys):
    blip = save_blip(tmp_path / "blip")
    found = []
    for number in (1, 2):
        folder = shutil.copytree(images, tmp_path / f"{number}")
        line = ("caption", folder, "--model", blip, "--num_processes", number, "--json")
        code, result, _ = sdft(capsys, *line)
        assert (code, result["labelled"], result["rejected"]) == (0, NUM_IMAGES, 1)
        found.append(words(folder, ".caption"))
    assert found[0] == found[1]
    assert len(set(found[0].values())) > 1


@pytest.mark.long
def test_what_no_process_can_do_is_said_once(folder, model, monkeypatch, capsys):
    (model / "selected_tags.csv").rename(model / "elsewhere")
    try:
        code, _, err = sdft(capsys, "tag", folder, "--model", model, "--num_processes", 2)
    finally:
        (model / "elsewhere").rename(model / "selected_tags.csv")
    assert code != 0
    assert err.count("error:") == 1


def test_processes_that_somebody_else_started_are_refused(folder, model, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    code, _, err = sdft(capsys, "tag", folder, "--model", model)
    assert code == 2
    assert "with --num_processes" in err
