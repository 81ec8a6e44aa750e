"""Metadata files say which words belong to which image, whatever form their keys have."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from sdft.dataset.listing import list_folder
from sdft.dataset.matching import Matches, match_keys
from sdft.dataset.metadata import joined, read_metadata
from sdft.dataset.records import WordRules
from sdft.errors import DataError

PLAIN = WordRules()


def read(folder: Path, text: str, name: str = "m.json", rules: WordRules = PLAIN) -> dict[str, str]:
    (folder / name).write_bytes(text.encode("utf-8"))
    return read_metadata(folder / name, rules).captions


@pytest.mark.parametrize(
    ("caption", "tags", "rules", "expected"),
    [
        ("a girl", "1girl, stage", {}, "a girl,1girl, stage"),
        ("a girl", "1girl", {"caption_separator": " | "}, "a girl | 1girl"),
        ("", "1girl, stage", {}, "1girl, stage"),
        ("", "1girl", {"enable_wildcard": True}, "1girl"),
        ("a girl", "", {}, "a girl"),
        ("", "", {}, ""),
        ("one\ntwo", "t", {"enable_wildcard": True}, "one,t\ntwo,t"),
        ("one\r\ntwo", "t", {}, "one,t"),
        ("one", "t,\nu", {}, "one,t, u"),
    ],
)
def test_caption_and_tags_become_one_text(caption, tags, rules, expected):
    assert joined(caption, tags, WordRules(**rules)) == expected


def test_json_and_jsonl_say_the_same(tmp_path):
    entries = {"a": {"caption": "x", "tags": "y"}, "日本": {"tags": "z"}, "c": {"caption": None}}
    lines = [json.dumps({"image_path": key} | entry) for key, entry in entries.items()]
    expected = {"a": "x,y", "日本": "z", "c": ""}
    assert read(tmp_path, json.dumps(entries)) == expected
    assert read(tmp_path, "\ufeff" + "\r\n\r\n".join(lines), "m.jsonl") == expected


def test_a_mistake_in_json_is_placed_by_line_and_column(tmp_path):
    with pytest.raises(DataError, match=r"m\.json:3, column 1: not JSON"):
        read(tmp_path, '{"a": {},\n"b": {"caption": "x"}\n"c": {}}')


def test_every_bad_line_and_entry_is_told_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path, '{"image_path": "a"}\n{"caption": "x"}\n{oops\n[]\n', "m.jsonl")
    assert [problem.where.rsplit("m.jsonl", 1)[1] for problem in caught.value.problems] == [
        ":2",
        ":3, column 2",
        ":4",
    ]
    with pytest.raises(DataError) as caught:
        read(tmp_path, '{"a": "text", "b": {"caption": 3}, "c": {"tags": {"x": 1}}, "d": [1]}')
    message = str(caught.value)
    assert 'key "a": an object with caption and tags is wanted, this is a text' in message
    assert 'key "b": caption is a number, not a text' in message
    assert 'key "c": tags is an object, not a text' in message
    assert 'key "d": an object with caption and tags is wanted, this is a list' in message


def test_very_many_mistakes_are_cut_short_and_counted(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path, json.dumps(dict.fromkeys(map(str, range(50)), 1)))
    assert "and 30 more mistakes like these" in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="does not hold an object of image keys"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["", "[" * 100_000])
def test_a_file_that_is_no_json_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"not JSON|nested too deep"):
        read(tmp_path, text)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "m.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match="not a UTF-8 text file"):
        read_metadata(tmp_path / "m.json", PLAIN)


def test_a_key_given_twice_counts_once_and_is_told(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"a": {"caption": "x"}, "a": {"caption": "y"}}')
    metadata = read_metadata(path, PLAIN)
    assert (metadata.captions, metadata.repeated) == ({"a": "y"}, ("a",))


def match(root: Path, *keys: str, recursive: bool = False, meta: Path | None = None) -> Matches:
    listing = list_folder(root, recursive=recursive)
    return match_keys(keys, listing, meta or root / "m.json")


def empty(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_every_form_of_key_finds_its_image(tmp_path):
    top, deep = empty(tmp_path / "a.b.png"), empty(tmp_path / "sub" / "c.png")
    forms = {
        "a.b.png": top,
        "a.b": top,
        "./a.b.png": top,
        str(top): top,
        "sub/c.png": deep,
        "sub\\c.png": deep,
        "sub/c": deep,
        str(deep): deep,
    }
    for key, path in forms.items():
        found = match(tmp_path, key, recursive=True)
        assert found.found == {key: (path.relative_to(tmp_path).as_posix(), path)}, key
        assert not found.moved, key


def test_a_path_into_a_subfolder_counts_also_without_recursion(tmp_path):
    deep = empty(tmp_path / "sub" / "c.png")
    assert match(tmp_path, "sub/c.png").found == {"sub/c.png": ("sub/c.png", deep)}
    assert match(tmp_path, "sub\\c.png").found == {"sub\\c.png": ("sub/c.png", deep)}


def test_a_key_may_be_relative_to_the_current_folder_or_to_the_metadata_file(tmp_path, monkeypatch):
    image = empty(tmp_path / "data" / "images" / "a.png")
    monkeypatch.chdir(tmp_path)
    found = match(image.parent, "data/images/a.png")
    assert found.found["data/images/a.png"][0] == "a.png"
    assert not found.moved
    empty(tmp_path / "elsewhere" / "x.png")
    beside = match(tmp_path / "elsewhere", "images/a.png", meta=tmp_path / "data" / "m.json")
    assert beside.found["images/a.png"] == ("images/a.png", image)


def test_an_absolute_key_may_lie_anywhere(tmp_path):
    outside = empty(tmp_path / "other" / "o.png")
    (tmp_path / "images").mkdir()
    meta = tmp_path / "images" / "m.json"
    assert match(tmp_path / "images", str(outside), meta=meta).found == {
        str(outside): (outside.as_posix(), outside)
    }


@pytest.mark.parametrize("key", ["../o.png", "sub/../../o.png", "..\\o.png"])
def test_a_relative_key_that_climbs_out_is_not_followed(tmp_path, key):
    empty(tmp_path / "o.png")
    (tmp_path / "images" / "sub").mkdir(parents=True)
    found = match(tmp_path / "images", key)
    assert (found.found, found.climbing) == ({}, [key])


def test_keys_of_a_moved_folder_are_found_by_their_last_parts_and_told(tmp_path):
    image = empty(tmp_path / "sub" / "a.png")
    for key in ("D:\\old\\sub\\a.png", "/old/place/sub/a.png", "train/sub/a"):
        found = match(tmp_path, key, recursive=True)
        assert found.found == {key: ("sub/a.png", image)}
        assert found.moved == [key]


def test_the_longest_last_parts_win(tmp_path):
    empty(tmp_path / "a.png")
    deep = empty(tmp_path / "sub" / "a.png")
    found = match(tmp_path, "/old/sub/a.png", recursive=True)
    assert found.found["/old/sub/a.png"] == ("sub/a.png", deep)


def test_keys_in_another_unicode_form_find_their_image(tmp_path):
    name = unicodedata.normalize("NFD", "ガé.png")
    image = empty(tmp_path / name)
    key = unicodedata.normalize("NFC", "ガé")
    assert match(tmp_path, key).found == {key: (name, image)}


def test_two_files_whose_names_differ_only_in_unicode_form_stay_apart(tmp_path):
    forms = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    for form in forms:
        empty(tmp_path / form)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system keeps one form only")
    assert {key: name for key, (name, _) in match(tmp_path, *forms).found.items()} == dict(
        zip(forms, forms, strict=True)
    )


def test_names_equal_but_for_case_stay_apart(tmp_path):
    empty(tmp_path / "A.png")
    empty(tmp_path / "a.png")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system does not tell case apart")
    found = match(tmp_path, "a", "A").found
    assert (found["a"][0], found["A"][0]) == ("a.png", "A.png")


def test_two_keys_of_one_image_and_a_stem_of_two_images_are_told(tmp_path):
    for name in ("a.png", "b.png", "b.jpg"):
        empty(tmp_path / name)
    found = match(tmp_path, "a", "a.png", "b", "gone")
    assert list(found.found) == ["a"]
    assert found.same_image == ["a.png"]
    assert found.ambiguous == {"b": [(name, tmp_path / name) for name in ("b.jpg", "b.png")]}
    assert found.unfound == ["gone"]


@pytest.mark.parametrize("key", ["", ".", "/", "x" * 5000, "nul\0byte.png", "C:", "\\", "sub"])
def test_keys_that_are_no_paths_are_unfound(tmp_path, key):
    empty(tmp_path / "sub" / "a.png")
    assert match(tmp_path, key).unfound == [key]
