"""What a person can get wrong, through the real command: the message and the exit code."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

CONFIG_MISTAKE = 2
DATA_MISTAKE = 4


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three good images and captions."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        picture(folder / f"{number}.png")
    return folder


def picture(path: Path, size: tuple[int, int] = (96, 64), caption: str | None = "a cat") -> None:
    Image.new("RGB", size, "red").save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def dataset(folder: object = "images", general: str = "", **subset: object) -> None:
    """Write `dataset.toml` in the current folder."""
    more = "\n".join(f"{name} = {json.dumps(value)}" for name, value in subset.items())
    Path("dataset.toml").write_text(
        f"""
[general]
caption_extension = ".txt"
{general}
[[datasets]]
resolution = 64
[[datasets.subsets]]
image_dir = '{folder}'
{more}
""",
        encoding="utf-8",
    )


def fates(ran) -> dict[str, dict[str, object]]:
    lines = Path(ran.result["fates"]).read_text(encoding="ascii").splitlines()
    return {Path(row["path"]).name: row for row in map(json.loads, lines)}


def png_of_size(path: Path, width: int, height: int) -> None:
    """A PNG whose header says any size; its pixels are few."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_good_input_is_planned(sdft, images):
    dataset()
    result = sdft("bucket", "dataset.toml", "--json").result
    assert (result["images"], result["used"], result["rejected"]) == (3, 3, 0)
    assert result["buckets"][0]["resolution"] == [64, 64]
    assert result["batches"] == 3
    assert Path(result["fates"]).name == "fates.jsonl"


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest(sdft, images):
    dataset(general="batchsize = 3", keep_tokenz=1)
    ran = sdft("bucket", "dataset.toml")
    assert ran.code == CONFIG_MISTAKE
    assert "dataset.toml:4" in ran.err
    assert 'did you mean "batch_size"?' in ran.err
    assert 'did you mean "keep_tokens"?' in ran.err


def test_a_misspelt_training_setting_is_named_with_the_nearest(sdft):
    Path("config.toml").write_text("learning_rat = 1e-5\n")
    ran = sdft("train", "config.toml")
    assert ran.code == CONFIG_MISTAKE
    assert "config.toml:1" in ran.err
    assert 'did you mean "learning_rate"?' in ran.err


def test_a_wrong_type_says_what_is_wanted(sdft, images):
    dataset(general='num_repeats = "many"')
    ran = sdft("bucket", "dataset.toml", "--max_train_steps", "few")
    assert ran.code == CONFIG_MISTAKE
    assert "num_repeats must be a whole number" in ran.err
    assert "--max_train_steps" in ran.err


def test_every_mistake_of_a_line_and_of_its_files_is_told_at_once(sdft, images):
    dataset(general="batchsize = 3")
    ran = sdft("train", "dataset.toml", "stray", "--lerning_rate", "1", "--network_module", "lora")
    assert ran.code == CONFIG_MISTAKE
    for words in ("batch_size", '"stray"', "--learning_rate", "LoRA is not supported"):
        assert words in ran.err


def test_a_missing_folder_is_named(sdft):
    dataset("nowhere")
    ran = sdft("bucket", "dataset.toml")
    assert ran.code in (CONFIG_MISTAKE, DATA_MISTAKE)
    assert "nowhere" in ran.err


def test_a_missing_config_is_named(sdft):
    ran = sdft("bucket", "nowhere.toml")
    assert ran.code == CONFIG_MISTAKE
    assert "nowhere.toml" in ran.err


def test_a_folder_without_images_is_named(sdft, tmp_path):
    (tmp_path / "images").mkdir()
    dataset()
    ran = sdft("bucket", "dataset.toml")
    assert ran.code == DATA_MISTAKE
    assert "images" in ran.err


def test_images_without_captions_name_the_extensions_that_are_there(sdft, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png", caption=None)
        (tmp_path / "images" / f"{number}.capt").write_text("a cat")
    dataset()
    ran = sdft("bucket", "dataset.toml")
    assert ran.code == DATA_MISTAKE
    assert ".capt" in ran.err


def test_a_text_file_named_png_is_a_fate_not_a_crash(sdft, images):
    for number in range(20):
        picture(images / f"more{number}.png")
    (images / "text.png").write_text("not a picture")
    (images / "text.txt").write_text("a cat")
    dataset()
    ran = sdft("bucket", "dataset.toml", "--json")
    assert ran.code == 0
    assert ran.result["rejected"] == 1
    assert fates(ran)["text.png"]["fate"] == "rejected"
    assert fates(ran)["text.png"]["reason"]


def test_a_picture_of_one_pixel_is_a_fate_not_a_crash(sdft, images):
    for number in range(20):
        picture(images / f"more{number}.png")
    picture(images / "dot.png", size=(1, 1))
    dataset()
    ran = sdft("bucket", "dataset.toml", "--json")
    assert ran.code == 0
    assert fates(ran)["dot.png"]["fate"] == "rejected"
    assert fates(ran)["dot.png"]["size"] == [1, 1]


def test_a_monstrous_picture_is_never_decoded_to_be_planned(sdft, images):
    png_of_size(images / "huge.png", 30_000, 30_000)
    (images / "huge.txt").write_text("a cat")
    dataset()
    ran = sdft("bucket", "dataset.toml", "--json", "--max_rejected_share", "0.5")
    assert ran.code == 0
    assert "huge.png" in fates(ran)


def test_too_many_broken_images_stop_with_their_names(sdft, images):
    (images / "0.png").write_text("not a picture")
    dataset()
    ran = sdft("bucket", "dataset.toml")
    assert ran.code == DATA_MISTAKE
    assert "0.png" in ran.err
    assert "max_rejected_share" in ran.err
    assert sdft("bucket", "dataset.toml", "--max_rejected_share", "0.5").code == 0


@pytest.mark.parametrize(
    "name",
    ["[red]a[bold]", "with  spaces", "\u732b\u306e\u7d75", "\U0001f408", "[", "a'b", "100%_^&"],
)
def test_any_name_is_taken_and_shown_as_it_is(sdft, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    picture(folder / f"{name}.png")
    Path("dataset.json").write_text(
        json.dumps(
            {
                "general": {"caption_extension": ".txt"},
                "datasets": [{"resolution": 64, "subsets": [{"image_dir": str(folder)}]}],
            }
        ),
        encoding="utf-8",
    )
    ran = sdft("bucket", "dataset.json", "--json")
    assert ran.code == 0, ran.err
    assert f"{name}.png" in fates(ran)
    (folder / f"{name}.png").write_text("broken")
    ran = sdft("bucket", "dataset.json")
    assert ran.code == DATA_MISTAKE
    assert name in ran.err.replace("\n", "")


def test_a_windows_path_in_double_quotes_is_told_with_the_cure(sdft):
    Path("dataset.toml").write_text(
        '[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = "D:\\train\\new"\n'
    )
    ran = sdft("bucket", "dataset.toml")
    assert ran.code == CONFIG_MISTAKE
    assert "dataset.toml:4" in ran.err
    assert "'D:\\train\\new'" in ran.err


def test_a_file_with_a_byte_order_mark_is_read(sdft, images):
    dataset()
    text = Path("dataset.toml").read_bytes()
    Path("dataset.toml").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert sdft("bucket", "dataset.toml").code == 0


def test_a_result_file_that_cannot_be_written_is_named(sdft, images):
    dataset()
    Path("file").write_text("")
    ran = sdft("bucket", "dataset.toml", "--fates", "file/fates.jsonl")
    assert ran.code == 3
    assert "fates.jsonl" in ran.err


def test_the_fates_can_be_a_table_for_a_spreadsheet(sdft, images):
    dataset()
    ran = sdft("bucket", "dataset.toml", "--fates", "f.csv", "--json")
    assert ran.result["fates"] == "f.csv"
    assert Path("f.csv").read_text(encoding="utf-8-sig").startswith("path,fate,reason")


def test_json_goes_to_a_file_and_quiet_leaves_the_screen_empty(sdft, images):
    dataset()
    ran = sdft("bucket", "dataset.toml", "--json-out", "out/r.json", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert json.loads(Path("out/r.json").read_text(encoding="ascii"))["images"] == 3


def test_progress_goes_to_stderr_and_the_table_to_stdout(sdft, images):
    dataset()
    ran = sdft("bucket", "dataset.toml")
    assert "64x64" in ran.out
    assert "index" in ran.err
    assert "64x64" not in ran.err


def test_flags_alone_do_where_there_is_no_file(sdft, images):
    line = f"bucket --train_data_dir {images} --resolution=64,64 --caption-extension .txt --json"
    assert sdft(*line.split()).result["used"] == 3
    assert Path("fates.jsonl").exists()


def test_a_beginning_that_fits_several_options_is_refused(sdft, images):
    ran = sdft("bucket", "--train_data_dir", images, "--caption_exten", ".txt")
    assert ran.code == CONFIG_MISTAKE
    assert "--caption_extension, --caption_extention" in ran.err


def test_a_dataset_flag_that_the_file_overrules_is_said(sdft, images):
    dataset()
    ran = sdft("bucket", "dataset.toml", "--resolution", "128")
    assert ran.code == 0
    assert "--resolution is overruled" in ran.err
    assert "dataset.toml:6" in ran.err


@pytest.mark.parametrize("encoding", ["cp932", "cp1252"])
def test_names_that_the_code_page_lacks_stop_nothing(tmp_path, encoding):
    folder = tmp_path / "\u732b\U0001f408"
    folder.mkdir()
    picture(folder / "\u732b\U0001f408.png")
    (folder / "\U0001f408.png").write_text("broken")
    line = [sys.executable, "-m", "sdft", "bucket", "--train_data_dir", str(folder)]
    line += ["--resolution", "64", "--caption_extension", ".txt", "--max_rejected_share", "0.9"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for more in ([], ["--json"]):
        done = subprocess.run(
            [*line, *more], capture_output=True, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        assert b"\\U0001f408.png" in done.stderr
        done.stdout.decode(encoding)
        assert not more or done.stdout.isascii()
