"""`sdft tag`, run as a person runs it, with a small ONNX model."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import sdft
from tests.tensor.labelers.onnx_models import WD14_ROWS, save_danbooru, save_mapping, save_wd14

GENERAL = [name for name, category in WD14_ROWS if category == 0]


@pytest.fixture(scope="module")
def model(module_folder):
    return save_wd14(module_folder("wd14"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my [set] \u7d75"
    folder.mkdir()
    make_images(folder, 5)
    return folder


def make_images(folder, number, side=24):
    draw = np.random.default_rng(2)
    for n in range(number):
        pixels = draw.integers(0, 256, (side, side + n % 7, 3), dtype=np.uint8)
        Image.fromarray(pixels // np.uint8(1 + n % 3 * 4)).save(folder / f"{n}.png")


def texts(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")}


def test_tags_stand_beside_the_images_and_a_second_run_does_nothing(folder, model, capsys):
    words = ("tag", folder, "--model", model, "--json")
    code, result, err = sdft(capsys, *words)
    assert (code, result["images"], result["labelled"], result["problems"]) == (0, 5, 5, [])
    assert "WD14 tagger on cpu" in err
    written = texts(folder)
    assert len(written) == 5
    assert all(text.endswith(b"\n") for text in written.values())
    code, result, err = sdft(capsys, *words)
    assert (code, result["labelled"], result["finished"]) == (0, 0, 5)
    assert "WD14" not in err
    assert texts(folder) == written


def test_other_settings_tag_anew_and_undo_brings_the_first_back(folder, model, capsys):
    sdft(capsys, "tag", folder, "--model", model, "--thresh", 0)
    first = texts(folder)
    code, result, _ = sdft(capsys, "tag", folder, "--model", model, "--thresh", 2, "--json")
    assert (code, result["labelled"]) == (0, 5)
    assert set(texts(folder).values()) == {b"\n"}
    code, result, _ = sdft(capsys, "metadata", "undo", folder, "--json")
    assert (code, len(result["restored"])) == (0, 5)
    assert texts(folder) == first


def test_what_a_person_wrote_is_kept_appended_to_or_overwritten(folder, model, capsys):
    (folder / "0.txt").write_text("by hand\n")
    base = ("tag", folder, "--model", model, "--general_threshold", 0, "--character-threshold", 2)
    _, result, _ = sdft(capsys, *base, "--json")
    assert (result["kept"], result["labelled"]) == (1, 4)
    assert (folder / "0.txt").read_text() == "by hand\n"
    sdft(capsys, *base, "--append_tags")
    assert (folder / "0.txt").read_text() == ", ".join(["by hand", *GENERAL]) + "\n"
    sdft(capsys, *base, "--overwrite")
    assert (folder / "0.txt").read_text() == ", ".join(GENERAL) + "\n"


def test_every_option_of_the_reference_is_taken_under_its_name(folder, model, capsys):
    words = "--onnx --batch_size 2 --max_data_loader_n_workers 1 --caption_extension .tags"
    words += " --thresh 0 --general_threshold 0 --character_threshold 0 --meta_threshold 0"
    words += " --model_threshold 0 --copyright_threshold 0 --artist_threshold 0 --recursive"
    words += " --remove_underscore --character_tag_expand --frequency_tags --use_rating_tags"
    words += " --use_quality_tags --use_quality_tags_as_last_tag --character_tags_first"
    words += " --use_rating_tags_as_last_tag --debug --model_dir unused"
    words = [*words.split(), "--undesired_tags", "solo", "--always_first_tags", "blue sky"]
    words += ["--tag_replacement", "1girl,woman;long hair,hair", "--caption_separator", " | "]
    code, text, _ = sdft(capsys, "tag", folder, "--repo_id", model, *words)
    assert code == 0
    tags = (folder / "0.tags").read_text().strip().split(" | ")
    assert tags[:5] == ["blue sky", "saber", "fate", "hatsune miku", "woman"]
    assert tags[5:7] == ["hair", "^_^"]
    assert "solo" not in tags
    assert tags[-1] in {name for name, category in WD14_ROWS if category == 9}
    assert "woman: 5" in text


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_one_table_instead_of_files(folder, model, capsys, suffix):
    out = folder / f"tags{suffix}"
    words = ("tag", folder, "--model", model, "--output_path", out, "--json")
    assert sdft(capsys, *words)[1]["labelled"] == 5
    assert texts(folder) == {}
    before = out.read_bytes()
    assert sdft(capsys, *words)[1]["finished"] == 5
    assert out.read_bytes() == before
    code, result, _ = sdft(capsys, "metadata", "show", out, "--json")
    assert (code, result["entries"]) == (0, 5)


@pytest.mark.parametrize("save", [save_mapping, save_danbooru])
def test_the_other_forms_are_found_by_their_tables(folder, tmp_path, capsys, save):
    model = save(tmp_path / "model")
    code, result, _ = sdft(capsys, "tag", folder, "--model", model, "--thresh", 0, "--json")
    assert (code, result["labelled"]) == (0, 5)
    assert "1girl" in (folder / "0.txt").read_text()


def test_bad_images_are_summed_up_and_the_rest_goes_on(folder, model, capsys):
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "1.png").write_text("no picture")
    Image.new("RGB", (3, 3)).save(folder / "2.jpg")
    code, result, _ = sdft(capsys, "tag", folder, "--model", model, "--json")
    assert (code, result["labelled"], result["rejected"]) == (0, 3, 3)
    problems = {problem["where"].rsplit("/", 1)[1]: problem for problem in result["problems"]}
    assert set(problems) == {"0.png", "1.png", "2.png"}
    assert "same stem" in problems["2.png"]["what"]
    code, text, err = sdft(capsys, "tag", folder, "--model", model)
    assert "3 could not be used" in text
    assert "not used" in err


def test_nothing_readable_at_all_is_an_error(tmp_path, model, capsys):
    (tmp_path / "a.png").write_text("no picture")
    code, _, err = sdft(capsys, "tag", tmp_path, "--model", model)
    assert code == 4
    assert "a.png" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "absent"), "neither a folder or file"),
        (("--tag_replacement", "a"), "not a replacement"),
        (("--tag_order", "size"), "no order"),
        (("--tagger", "wd15"), 'did you mean "wd14"?'),
        (("--append_tags", "--output_path", "x.json"), "not to a table"),
        (("--output_path", "x.csv"), "a .json or a .jsonl"),
        (("--device", "tpu"), "no device"),
    ],
)
def test_mistakes_on_the_command_line_are_said(folder, model, capsys, words, message):
    code, _, err = sdft(capsys, "tag", folder, "--model", model, *words)
    assert code == 2
    assert message in err


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX users")
def test_a_read_only_folder_is_named(folder, model, capsys):
    folder.chmod(0o555)
    as_root = os.geteuid() == 0
    try:
        if as_root:
            # Root may write anywhere; nobody may not.
            for parent in [folder, *folder.parents][:4]:
                parent.chmod(parent.stat().st_mode | 0o055)
            for file in model.iterdir():
                file.chmod(0o644)
            for parent in [model, *model.parents][:4]:
                parent.chmod(parent.stat().st_mode | 0o055)
            os.seteuid(65534)
        code, _, err = sdft(capsys, "tag", folder, "--model", model)
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(0o755)
    assert code == 3
    assert "cannot be written" in err
    assert str(folder) in err.replace("\n", "")


def test_a_killed_run_goes_on_and_ends_with_the_files_of_an_unbroken_one(tmp_path, model, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        make_images(folder, 40, side=300)
    words = ["tag", str(broken), "--model", str(model), "--batch_size", "1", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "sdft", *words])
    deadline = time.monotonic() + 120
    while len(texts(broken)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    num_done = len(texts(broken))
    assert 5 <= num_done < 40
    code, result, _ = sdft(capsys, *words, "--json")
    assert code == 0
    # A file may have been noted and not yet written when the process was killed.
    assert result["finished"] == num_done
    assert result["labelled"] == 40 - num_done
    sdft(capsys, "tag", whole, "--model", model)
    assert texts(broken) == texts(whole)
    assert not list(broken.rglob("*.part-*"))


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path, model):
    make_images(tmp_path, 40, side=300)
    words = ["tag", str(tmp_path), "--model", str(model), "--batch_size", "1", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sdft", *words], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(texts(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert 3 <= len(texts(tmp_path)) < 40
