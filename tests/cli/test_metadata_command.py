"""`sdft metadata`, run as a person runs it."""

import json

import pytest
from PIL import Image

from tests.cli.commands import sdft


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my [set] \u7d75"
    folder.mkdir()
    for number, name in enumerate(("1", "2", "3")):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{name}.png")
        (folder / f"{name}.caption").write_text(f"a woman, number {name}\n")
        (folder / f"{name}.txt").write_text("2girls, blue_hair, red_hair, rating:safe\n")
    return folder


def test_merge_clean_undo_is_a_round_trip(folder, capsys):
    out = folder / "meta.json"
    code, result, _ = sdft(capsys, "metadata", "merge", folder, "--out", out, "--json")
    assert (code, result["entries"], result["added"]) == (0, 3, 6)
    assert result["image_dir"] == str(folder)
    merged = out.read_bytes()
    assert json.loads(merged)["1.png"]["tags"] == "2girls, blue_hair, red_hair, rating:safe"

    code, result, _ = sdft(capsys, "metadata", "clean", out, "--json")
    assert (code, result["changed"]) == (0, 6)
    assert json.loads(out.read_bytes())["1.png"] == {
        "caption": "a girl, number 1",
        "tags": "2girls",
    }
    code, result, _ = sdft(capsys, "metadata", "undo", out, "--json")
    assert (code, result["restored"]) == (0, [str(out)])
    assert out.read_bytes() == merged


def test_a_second_run_that_finds_its_work_done_writes_nothing(folder, capsys):
    out = folder / "meta.json"
    sdft(capsys, "metadata", "merge", folder, "--out", out)
    sdft(capsys, "metadata", "clean", out)
    written = out.stat().st_mtime_ns
    code, result, _ = sdft(capsys, "metadata", "clean", out, "--json")
    assert (code, result["written"]) == (0, False)
    code, result, _ = sdft(capsys, "metadata", "merge", folder, "--out", out, "--json")
    assert (code, result["written"], result["kept"]) == (0, False, 6)
    assert out.stat().st_mtime_ns == written


def test_a_dry_run_shows_the_difference_and_writes_nothing(folder, capsys):
    out = folder / "meta.jsonl"
    code, text, _ = sdft(capsys, "metadata", "merge", folder, "--out", out, "--dry-run")
    assert code == 0
    assert "1.png [caption]\n+ a woman, number 1\n" in text
    assert not out.exists()
    sdft(capsys, "metadata", "merge", folder, "--out", out)
    before = out.read_bytes()
    code, text, _ = sdft(capsys, "metadata", "clean", out, "--dry_run")
    assert "2.png [caption]\n- a woman, number 2\n+ a girl, number 2\n" in text
    assert "nothing was written" in text
    assert out.read_bytes() == before


def test_a_file_that_somebody_else_made_is_not_overwritten(folder, capsys):
    source, out = folder / "meta.json", folder / "out.json"
    sdft(capsys, "metadata", "merge", folder, "--out", source)
    out.write_text("{}")
    code, _, err = sdft(capsys, "metadata", "clean", source, out)
    assert code == 2
    assert "was not made by sdft" in err
    assert out.read_text() == "{}"
    assert sdft(capsys, "metadata", "clean", source, out, "--overwrite")[0] == 0
    assert sdft(capsys, "metadata", "undo", out)[0] == 0
    assert out.read_text() == "{}"


def test_a_caption_file_in_shift_jis_stops_the_merge_by_name(folder, capsys):
    (folder / "2.caption").write_bytes("\u9577\u3044\u9aea\u306e\u5c11\u5973".encode("shift_jis"))
    code, _, err = sdft(capsys, "metadata", "merge", folder, "--out", folder / "m.json")
    assert code == 4
    assert "2.caption" in err
    assert "Shift-JIS" in err
    assert not (folder / "m.json").exists()


def test_missing_words_and_other_extensions_are_said(folder, capsys):
    for name in ("1", "2", "3"):
        (folder / f"{name}.caption").unlink()
    words = ("metadata", "merge", folder, "--out", folder / "m.json", "--tags_extension", ".tag")
    code, _, err = sdft(capsys, *words)
    assert code == 0
    assert "3 of 3 images have neither caption nor tags; there are files with .txt" in err


def test_check_ends_with_4_where_training_would_miss_something(folder, capsys):
    out = folder / "meta.json"
    sdft(capsys, "metadata", "merge", folder, "--out", out)
    code, result, _ = sdft(capsys, "metadata", "check", out, "--json")
    assert (code, result["errors"]) == (0, 0)
    Image.new("RGB", (4, 4)).save(folder / "4.png")
    entries = json.loads(out.read_bytes()) | {"../5.png": {"tags": "x"}}
    entries["1.png"]["caption"] = "many words " * 60
    out.write_text(json.dumps(entries))
    code, result, _ = sdft(capsys, "metadata", "check", out, "--json")
    kinds = {finding["kind"] for finding in result["findings"]}
    assert code == 4
    assert {"image without words", "key outside the folder", "over 75 tokens"} <= kinds
    code, text, _ = sdft(capsys, "metadata", "check", folder)
    assert code == 4
    assert "error: image without words" in text


def test_a_key_that_points_outside_stops_clean_and_merge(folder, capsys):
    out = folder / "meta.json"
    out.write_text('{"../../etc/passwd.png": {"tags": "x"}}')
    for words in (("clean", out), ("merge", folder, "--out", out)):
        code, _, err = sdft(capsys, "metadata", *words)
        assert code == 4
        assert "points outside" in err


def test_broken_json_is_named_with_line_and_column(folder, capsys):
    out = folder / "meta.json"
    out.write_text('{\n"a.png": {"tags" "x"}}')
    code, _, err = sdft(capsys, "metadata", "show", out)
    assert code == 4
    assert "meta.json:2:18: broken JSON" in err


def test_show_prints_frequencies(folder, capsys):
    out = folder / "meta.json"
    sdft(capsys, "metadata", "merge", folder, "--out", out)
    code, text, _ = sdft(capsys, "metadata", "show", out, "--top", 1)
    assert code == 0
    assert text.splitlines()[0].split() == ["3", "2girls"]
    assert "more" in text


def test_nothing_to_undo_is_said(folder, capsys):
    code, _, err = sdft(capsys, "metadata", "undo", folder)
    assert code == 2
    assert "nothing to undo" in err
