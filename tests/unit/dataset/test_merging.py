"""Words beside images, merged, cleaned by own rules, checked; files in all three forms."""

import json
import unicodedata

import pytest
from PIL import Image

from sdft.dataset.changes import changes_between, changes_text
from sdft.dataset.image_list import list_images
from sdft.dataset.merging import merge_words
from sdft.dataset.metadata_file import fill_metadata, read_metadata
from sdft.dataset.own_rules import Rules, clean_entries, read_rules, tidy_caption, tidy_tags
from sdft.dataset.word_checks import check_entries, tag_frequencies, word_frequencies
from sdft.dataset.word_files import read_words, words_file
from sdft.errors import ConfigError, DataError, UserError


def picture(path, colour=(1, 2, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.webp")):
        picture(tmp_path / "set" / name, (number, 0, 0))
    (tmp_path / "set/a.caption").write_text("a girl\n")
    (tmp_path / "set/a.txt").write_text("1girl, smile\n")
    (tmp_path / "set/b.txt").write_text("sky\n")
    (tmp_path / "set/sub/c.caption").write_text("two\r\nlines\r\n", newline="")
    return tmp_path / "set"


def merged(folder, **options):
    recursive = options.pop("recursive", False)
    return merge_words(list_images([str(folder)], recursive=recursive), **options)


def test_captions_and_tags_stand_under_keys_relative_to_the_folder(folder):
    assert merged(folder, recursive=True).entries == {
        "a.png": {"caption": "a girl", "tags": "1girl, smile"},
        "b.jpg": {"tags": "sky"},
        "sub/c.webp": {"caption": "two\nlines"},
    }


def test_full_paths_are_absolute(folder):
    keys = list(merged(folder, full_path=True).entries)
    assert keys == [f"{folder.as_posix()}/a.png", f"{folder.as_posix()}/b.jpg"]


def test_several_folders_get_keys_from_the_folder_they_share(tmp_path):
    for name in ("one/1.png", "two/1.png"):
        picture(tmp_path / name)
        (tmp_path / name).with_suffix(".caption").write_text(name)
    images = list_images([str(tmp_path / "one"), str(tmp_path / "two")])
    result = merge_words(images)
    assert result.base == tmp_path
    assert {key: entry["caption"] for key, entry in result.entries.items()} == {
        "one/1.png": "one/1.png",
        "two/1.png": "two/1.png",
    }


def test_existing_values_stay_unless_asked_otherwise(folder):
    existing = {"a.png": {"caption": "by hand", "extra": 1}, "b.jpg": {"tags": "sky"}}
    kept = merged(folder, existing=existing)
    assert kept.entries["a.png"] == {"caption": "by hand", "extra": 1, "tags": "1girl, smile"}
    assert (kept.num_added, kept.num_kept, kept.num_replaced) == (1, 1, 0)
    replaced = merged(folder, existing=existing, overwrite=True)
    assert replaced.entries["a.png"]["caption"] == "a girl"
    assert (replaced.num_kept, replaced.num_replaced) == (0, 1)


def test_an_entry_of_an_older_tool_keeps_its_stem_as_key(folder):
    existing = {"a": {"caption": "old"}, (folder / "b.jpg").as_posix(): {}}
    assert list(merged(folder, existing=existing).entries) == list(existing)


def test_a_stem_that_stands_for_two_images_is_refused(folder):
    picture(folder / "a.jpg")
    with pytest.raises(DataError, match='the key "a" stands for 2 images'):
        merged(folder, existing={"a": {}})


def test_two_images_with_one_stem_are_named(folder):
    picture(folder / "a.jpg")
    (notice,) = merged(folder).notices
    assert "2 images share one caption file: a.jpg, a.png" in str(notice)


def test_images_without_words_are_listed(folder):
    (folder / "b.txt").write_text("  \n")
    result = merged(folder)
    assert result.without_words == ("b.jpg",)
    assert "empty" in str(result.notices[0])


def test_face_numbers_in_a_name_may_be_left_out_of_the_caption_file(tmp_path):
    image = tmp_path / "girl_0001_10_20_30_40.png"
    (tmp_path / "girl_0001.txt").write_text("1girl")
    assert words_file(image, ".txt").name == "girl_0001.txt"
    (tmp_path / "girl_0001_10_20_30_40.txt").write_text("own")
    assert words_file(image, ".txt").name == "girl_0001_10_20_30_40.txt"


JAPANESE = "\u9577\u3044\u9aea\u306e\u5c11\u5973\u304c\u7acb\u3063\u3066\u3044\u308b"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("utf-16-be", None)],
)
def test_words_in_unicode_are_read_whatever_the_encoding(tmp_path, encoding, shown):
    file = tmp_path / "1.txt"
    file.write_bytes((JAPANESE if shown else "plain words").encode(encoding))
    words = read_words(file)
    assert words.text == (JAPANESE if shown else "plain words")
    assert words.encoding == (shown or "UTF-16-BE")


def test_utf_16_is_said_and_shift_jis_is_named_never_garbled(folder):
    (folder / "a.caption").write_bytes(JAPANESE.encode("utf-16"))
    (folder / "b.txt").write_bytes(JAPANESE.encode("shift_jis"))
    result = merged(folder)
    assert result.entries["a.png"]["caption"] == JAPANESE
    assert "read as UTF-16" in str(result.notices[0])
    (problem,) = result.problems
    assert "not UTF-8" in str(problem)
    assert "Shift-JIS" in str(problem)
    assert str(folder / "b.txt") in str(problem)
    assert "tags" not in result.entries["b.jpg"]


def test_names_and_wildcards_are_expanded_here(folder):
    picture(folder / "x [1].PNG")
    names = [image.path.name for image in list_images([str(folder / "*.png")])]
    assert names == ["a.png"]
    (bracketed,) = list_images([str(folder / "x [1].PNG")])
    assert bracketed.path.name == "x [1].PNG"
    below = list_images([str(folder / "**" / "*.webp")])
    assert [image.path.name for image in below] == ["c.webp"]
    with pytest.raises(UserError, match="no such file or folder"):
        list_images([str(folder / "absent")])
    with pytest.raises(UserError, match="fits no file"):
        list_images([str(folder / "*.tiff")])
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        list_images([str(folder / "empty")])


ENTRIES = {
    "a.png": {"caption": JAPANESE, "tags": "1girl", "image_size": [10, 20]},
    "b.png": {"tags": "sky"},
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_metadata_survives_writing_and_reading(tmp_path, suffix):
    path = tmp_path / f"meta{suffix}"
    fill_metadata(path, ENTRIES, path)
    assert read_metadata(path) == ENTRIES
    if suffix != ".parquet":
        assert path.read_bytes().isascii()


def test_jsonl_has_the_reference_s_fields(tmp_path):
    path = tmp_path / "meta.jsonl"
    fill_metadata(path, ENTRIES, path)
    assert json.loads(path.read_text().splitlines()[1]) == {"image_path": "b.png", "tags": "sky"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", '{\n  "a.png": {"tags": }\n}', "m.json:2:21: broken JSON"),
        ("m.json", '["a.png"]', "its top is no object"),
        ("m.json", '{"a": {"tags": ["x"]}}', "tags is not text"),
        ("m.json", '{"a": "x"}', "the entry is no object"),
        ("m.json", '{"a": {}, "a": {}}', '"a" stands twice'),
        ("m.jsonl", '{"image_path": "a"}\n{"image_path": }', "m.jsonl:2:16: broken JSON"),
        ("m.jsonl", '{"caption": "a"}', "m.jsonl:1: the line has no image_path"),
        ("m.jsonl", '{"image_path": "a"}\n{"image_path": "a"}', "stands twice"),
        ("m.parquet", "PAR", "not a Parquet file"),
    ],
)
def test_broken_metadata_is_named_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        read_metadata(tmp_path / name)
    assert name in str(error.value)
    assert message in str(error.value)


def test_own_rules_rename_replace_and_drop(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        """
        [tags]
        alias = { "1girl" = ["one girl", "single girl"] }
        replace = { "grey hair" = "gray hair" }
        drop = ["watermark", "* name"]
        [captions]
        replace = { "photo" = "photograph" }
        drop = ["stock"]
        """
    )
    rules = read_rules(path)
    tags = "one_girl, 1girl, grey_hair, watermark, artist_name, smile"
    assert tidy_tags(tags, rules) == "1girl, gray hair, smile"
    assert tidy_caption("a stock photo of a woman", rules) == "a photograph of a girl"


def test_the_reference_s_rules_can_be_left_out():
    rules = Rules(reference=False, tag_drop=("a_b",))
    assert tidy_tags("a_b, c_d, rating:safe", rules) == "c_d, rating:safe"
    assert tidy_caption("a woman", rules) == "a woman"


def test_all_mistakes_of_a_rules_file_are_told_at_once(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text('[tag]\n[tags]\ndrops = ["a"]\nalias = "x"\n[captions]\nalias = {}\ndrop = [1]')
    with pytest.raises(ConfigError) as error:
        read_rules(path)
    message = str(error.value)
    assert len(error.value.problems) == 5
    assert 'did you mean "tags"?' in message
    assert 'did you mean "drop"?' in message
    path.write_text("[tags")
    with pytest.raises(ConfigError, match="not TOML"):
        read_rules(path)


def test_cleaning_entries_keeps_other_fields_and_tells_what_went():
    entries = {
        "a": {"tags": "2girls, blue_hair, red_hair", "caption": "a woman", "image_size": [1, 2]},
        "b": {"tags": "x, rating:safe, y, rating:safe"},
        "c": {"caption": "young "},
    }
    cleaned = clean_entries(entries, Rules())
    assert cleaned.entries["a"] == {"tags": "2girls", "caption": "a girl", "image_size": [1, 2]}
    assert (cleaned.num_without_tags, cleaned.num_without_caption) == (1, 1)
    assert [notice.where for notice in cleaned.notices] == ["b", "c"]
    text = changes_text(changes_between(entries, cleaned.entries))
    assert "a [tags]\n- 2girls, blue_hair, red_hair\n+ 2girls\n" in text


def count_words(text):
    return len(text.replace(",", " ").split())


def test_a_check_finds_what_is_odd(tmp_path):
    names = ("a.png", "b.png", "c.png", "same.png", "stem.png", "stem.jpg", "empty.png")
    for number, name in enumerate(names):
        picture(tmp_path / name, (0 if name == "same.png" else number, 0, 0))
    images = [image.path for image in list_images([str(tmp_path)])]
    entries = {
        "a.png": {"caption": "x " * 80, "tags": "long hair, long_hair, x, x"},
        "b.png": {"caption": "wide\u3000space \ufffd", "tags": "Long-Hair, ^_^"},
        "same.png": {"caption": "one", "tags": "y " * 151},
        "stem": {"caption": "one", "tags": "y " * 230},
        "c": {"tags": "z"},
        "c.png": {"tags": "z"},
        "gone.png": {"tags": "z"},
        "../out.png": {"tags": "z"},
        "empty.png": {"caption": ""},
    }
    found = check_entries(entries, base=tmp_path, images=images, count_tokens=count_words)
    by_kind = {}
    for finding in found:
        by_kind.setdefault(finding.kind, []).append(finding)
    assert [f.where for f in by_kind["over 75 tokens"]] == ["a.png"]
    assert [f.where for f in by_kind["over 150 tokens"]] == ["same.png"]
    assert [f.where for f in by_kind["over 225 tokens"]] == ["stem"]
    assert [f.where for f in by_kind["words without image"]] == ["gone.png"]
    assert [f.where for f in by_kind["key outside the folder"]] == ["../out.png"]
    assert [f.where for f in by_kind["image without words"]] == [str(tmp_path / "empty.png")]
    assert [f.where for f in by_kind["duplicate key"]] == ["c.png"]
    assert [f.where for f in by_kind["shared stem"]] == [str(tmp_path / "stem")]
    assert [f.where for f in by_kind["duplicate image"]] == [str(tmp_path / "same.png")]
    assert by_kind["duplicate tag"][0].what == "x"
    assert "2 images have this caption: one" in by_kind["same caption"][0].what
    (odd,) = by_kind["odd character"]
    assert "U+3000" in odd.what
    assert unicodedata.name("\ufffd").lower() in odd.what
    spelling = next(f for f in by_kind["tag spelling"] if "long hair" in f.what)
    assert all(tag in spelling.what for tag in ('"long hair"', '"long_hair"', '"Long-Hair"'))
    assert [f.is_error for f in found] == sorted((f.is_error for f in found), reverse=True)


def test_frequencies_come_most_frequent_first():
    entries = {"a": {"tags": "x, y, y", "caption": "A dog"}, "b": {"tags": "y", "caption": "a cat"}}
    assert tag_frequencies(entries) == [("y", 2), ("x", 1)]
    assert word_frequencies(entries) == [("a", 2), ("cat", 1), ("dog", 1)]


def test_images_in_hidden_folders_and_hidden_images_are_passed_over(folder):
    picture(folder / ".cache/x.png")
    picture(folder / ".y.png")
    names = [image.path.name for image in list_images([str(folder)], recursive=True)]
    assert names == ["a.png", "b.jpg", "c.webp"]
