"""Files as Windows editors write them, and paths as Windows has them."""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath

import pytest
from PIL import Image

from sdft.config.load import load_config
from sdft.config.write import in_ascii, toml_value
from sdft.dataset.listing import list_folder
from sdft.dataset.matching import match_keys
from sdft.dataset.metadata_file import fill_metadata, read_metadata
from sdft.errors import ConfigError, DataError
from sdft.files import in_form_of, read_text, write_bytes
from tests.windows_names import names_windows_refuses

BOM = b"\xef\xbb\xbf"
FORMS = {
    "plain": (b"", "\n"),
    "windows": (BOM, "\r\n"),
    "no mark": (b"", "\r\n"),
    "mark": (BOM, "\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_written_back_keeps_its_mark_and_its_line_ends(
    tmp_path: Path, form: str
) -> None:
    mark, end = FORMS[form]
    path = tmp_path / "meta.json"
    text = json.dumps({"a.png": {"caption": "x", "tags": "y"}}, indent=2) + "\n"
    path.write_bytes(mark + text.replace("\n", end).encode())
    entries = read_metadata(path)
    fill_metadata(path, entries, path)
    assert path.read_bytes() == mark + text.replace("\n", end).encode()
    fill_metadata(path, {**entries, "b.png": {"caption": "z", "tags": ""}}, path)
    content = path.read_bytes()
    assert content.startswith(mark + b"{")
    assert content.count(b"\n") == content.count(end.encode())
    assert read_metadata(path)["b.png"]["caption"] == "z"


@pytest.mark.parametrize("form", FORMS)
def test_captions_keep_their_form_when_a_tagger_adds_to_them(tmp_path: Path, form: str) -> None:
    from sdft.dataset.write_log import WriteLog
    from sdft.labelers.runner import Task
    from sdft.labelers.sinks import TextFiles

    mark, end = FORMS[form]
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    caption = tmp_path / "a.txt"
    caption.write_bytes(mark + f"a cat{end}".encode())
    log = WriteLog(line="sdft tag", settings="s")
    sink = TextFiles(log=log, extension=".txt", separator=", ", append=True)
    task = Task(path=tmp_path / "a.png", key="a.png")
    assert sink.state(task)
    sink.write(task, ("sleeping",))
    assert caption.read_bytes() == mark + f"a cat, sleeping{end}".encode()


def test_a_new_file_has_no_mark(tmp_path: Path) -> None:
    assert in_form_of(tmp_path / "new.txt", "a\nb\n") == b"a\nb\n"


def test_what_powershell_redirects_into_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for encoding in ("utf-16-le", "utf-16-be"):
        write_bytes(path, ("\ufeff" + 'seed = 7\r\noutput_name = "\u732b"\r\n').encode(encoding))
        assert read_text(path).startswith("seed = 7")
    write_bytes(path, b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a UTF-8 text file"):
        read_text(path)


ODD_PATHS = [
    r"D:\pictures\cats",
    r"D:\it's\here",
    r"\\server\share\cats",
    r"\\?\D:\very\long",
    "D:/pictures/\u732b\U0001f408",
    "C:\\Users\\\u7530\u4e2d\\it's \U0001f408",
    "a" * 300,
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_a_path_survives_the_way_through_toml_and_through_any_console(path: str) -> None:
    import tomllib

    written = f"output_dir = {toml_value(path)}\n"
    assert tomllib.loads(written)["output_dir"] == path
    assert in_ascii(written).isascii()
    assert tomllib.loads(in_ascii(written))["output_dir"] == path


def match(folder: Path, key: str) -> str | None:
    """Return the image that a metadata key finds, relative to the folder."""
    listing = list_folder(folder, recursive=True)
    found = match_keys([key], listing, folder / "meta.json").found
    return found[key][1].relative_to(folder).as_posix() if found else None


KEYS = [
    "sub\\cat.png",
    ".\\sub\\cat.png",
    "D:\\train\\sub\\cat.png",
    "d:/train/sub\\cat.png",
    "\\\\server\\share\\train\\sub\\cat.png",
    "\\\\?\\D:\\train\\sub\\cat.png",
    "D:\\" + "\\".join(["long folder"] * 30) + "\\sub\\cat.png",
    "sub\\cat",
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_written_on_windows_find_their_image_on_any_system(tmp_path: Path, key: str) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "sub" / "cat.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "dog.png")
    # What Windows itself takes for the last two parts of such a path.
    assert PureWindowsPath(key).parts[-2:] in {("sub", "cat.png"), ("sub", "cat")}
    assert match(tmp_path, key) == "sub/cat.png"


@pytest.mark.parametrize("key", ["con", "con.png", "NUL", "aux.txt", "cat.png.", "cat.png ", "C:"])
def test_reserved_and_bent_names_find_nothing_and_break_nothing(tmp_path: Path, key: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "cat.png")
    assert match(tmp_path, key) is None


def problems_of(tmp_path: Path, line: str) -> list[str]:
    path = tmp_path / "config.toml"
    path.write_text(line + "\n", "utf-8")
    try:
        load_config(path, {}, tmp_path)
    except ConfigError as error:
        return [problem.what for problem in error.problems if "output" in problem.what]
    return []


@pytest.mark.parametrize(
    "name",
    ["con", "NUL", "aux.v2", "com1", "LPT9.safetensors", "cats.", "cats ", "a:b", "a?b", "a*"],
)
def test_a_name_that_windows_cannot_have_is_refused_everywhere(tmp_path: Path, name: str) -> None:
    """A run folder has to be readable where it is copied to."""
    (what,) = problems_of(tmp_path, f"output_name = {toml_value(name)}")
    assert "output_name" in what


@pytest.mark.parametrize("name", ["cats", "console", "common", "cats v1.5", "\u732b", "a.b", "lpt"])
def test_other_names_are_taken(tmp_path: Path, name: str) -> None:
    assert problems_of(tmp_path, f"output_name = {toml_value(name)}") == []


def test_the_finder_of_bad_names_finds_them(tmp_path: Path) -> None:
    for name in ("a:b", "nul.txt", "end."):
        (tmp_path / name).touch()
    (tmp_path / "fine.txt").touch()
    assert len(names_windows_refuses(tmp_path)) == 3
