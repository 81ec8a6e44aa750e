"""`sdft caption`, run as a person runs it, with captioners of the real classes, a few KB each."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import sdft
from tests.tensor.labelers.tiny_captioners import save_blip, save_git, save_llava


@pytest.fixture(scope="module")
def blip(module_folder):
    return save_blip(module_folder("models") / "blip")


def make_images(folder, number):
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(2)
    for n in range(number):
        pixels = draw.integers(0, 256, (30 + n % 5, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels // np.uint8(1 + n % 3 * 4)).save(folder / f"{n}.png")
    return folder


def captions(folder, suffix=".caption"):
    return {path.name: path.read_bytes() for path in folder.glob(f"*{suffix}")}


def test_captions_stand_beside_the_images_whatever_the_batch(tmp_path, blip, capsys):
    folders = [make_images(tmp_path / name, 7) for name in ("one", "three")]
    for folder, batch_size in zip(folders, (1, 3), strict=True):
        words = ("caption", folder, "--model", blip, "--batch_size", batch_size, "--json")
        code, result, err = sdft(capsys, *words)
        assert (code, result["labelled"], result["problems"]) == (0, 7, [])
        assert "BLIP on cpu" in err
    assert captions(folders[0]) == captions(folders[1])
    assert len(set(captions(folders[0]).values())) > 1
    code, result, _ = sdft(capsys, "caption", folders[0], "--model", blip, "--json")
    assert (code, result["labelled"], result["finished"]) == (0, 0, 7)


@pytest.mark.parametrize(("save", "title"), [(save_git, "GIT"), (save_llava, "llava")])
def test_the_same_command_drives_other_captioners(tmp_path, save, title, capsys):
    folder, model = make_images(tmp_path / "set", 2), save(tmp_path / "model")
    words = ("--beam_search", "--num_beams", 2, "--max_length", 12, "--caption_extension", "cap")
    code, result, err = sdft(capsys, "caption", folder, "--model_id", model, *words, "--json")
    assert (code, result["labelled"], result["output"]) == (0, 2, ".cap")
    assert f"{title} on cpu" in err
    assert len(captions(folder, ".cap")) == 2


def test_the_reference_s_options_are_taken_under_their_names(tmp_path, blip, capsys):
    folder = make_images(tmp_path / "set", 2)
    words = "--beam_search --num_beams 2 --top_p 0.8 --max_length 20 --min_length 8 --batch_size 2"
    words += " --max_data_loader_n_workers 1 --seed 7 --recursive --remove_words --debug"
    words += " --caption_extention .txt"
    code, _, _ = sdft(capsys, "caption", folder, "--model", blip, *words.split())
    assert code == 0
    assert len(captions(folder, ".txt")) == 2


def test_a_person_s_captions_are_kept(tmp_path, blip, capsys):
    folder = make_images(tmp_path / "set", 2)
    (folder / "0.caption").write_text("by hand\n")
    words = ("caption", folder, "--model", blip, "--max_length", 12)
    _, text, _ = sdft(capsys, *words)
    assert "1 have words of your own" in text
    assert (folder / "0.caption").read_text() == "by hand\n"
    sdft(capsys, *words, "--overwrite")
    assert (folder / "0.caption").read_text() != "by hand\n"
    sdft(capsys, "metadata", "undo", folder)
    # Both runs have the same settings and the first one was whole, so only the second is undone.
    assert (folder / "0.caption").read_text() == "by hand\n"
    assert (folder / "1.caption").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--captioner", "blipp"), 2, 'did you mean "blip"?'),
        (("--dtype", "fp8"), 2, "no precision"),
        (("--captioner", "general"), 2, "no default model"),
        (("--model", "absent"), 2, "neither a folder or file"),
    ],
)
def test_mistakes_on_the_command_line_are_said(tmp_path, capsys, words, code, message):
    folder = make_images(tmp_path / "set", 1)
    found, _, err = sdft(capsys, "caption", folder, *words)
    assert found == code
    assert message in err


def test_a_model_folder_without_its_parts_is_named(tmp_path, capsys):
    folder = make_images(tmp_path / "set", 1)
    code, _, err = sdft(capsys, "caption", folder, "--model", folder)
    assert code == 4
    assert "config.json is missing" in err


def test_a_killed_run_goes_on_and_ends_with_the_files_of_an_unbroken_one(tmp_path, blip, capsys):
    whole, broken = make_images(tmp_path / "whole", 30), make_images(tmp_path / "broken", 30)
    words = ["caption", str(broken), "--model", str(blip), "--batch_size", "1", "--quiet"]
    words += ["--max_length", "24"]
    process = subprocess.Popen([sys.executable, "-m", "sdft", *words])
    deadline = time.monotonic() + 120
    while len(captions(broken)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    num_done = len(captions(broken))
    assert 5 <= num_done < 30
    code, result, _ = sdft(capsys, *words, "--json")
    assert (code, result["finished"], result["labelled"]) == (0, num_done, 30 - num_done)
    sdft(capsys, "caption", whole, "--model", blip, "--max_length", 24)
    assert captions(broken) == captions(whole)
