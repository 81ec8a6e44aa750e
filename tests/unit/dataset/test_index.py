"""The index finds every image and caption, and says of the rest what is wrong."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from sdft.dataset.buckets import plan_buckets
from sdft.dataset.index import build_index
from sdft.dataset.records import BucketSettings, DatasetIndex, SubsetSpec, WordRules
from sdft.errors import DataError
from sdft.events import Event, ItemRejected, StageFinished, StageProgress, StageStarted
from tests.unit.dataset.pictures import captioned, index_of, monstrous_png, picture


def reasons(index: DatasetIndex) -> dict[str, str]:
    return {entry.path.name: entry.reason for entry in index.rejected}


def keys(index: DatasetIndex) -> list[str]:
    return [item.key for item in index.items]


def notices(index: DatasetIndex) -> str:
    return "\n".join(map(str, index.notices))


def test_images_are_found_by_extension_in_any_case_and_sorted(tmp_path):
    captioned(tmp_path, "b.PNG", "a.Jpg", "C.webp", "d.gif", "e.bmp", "f.TIFF", "g.jpeg")
    (tmp_path / "notes.md").write_text("no image")
    index = index_of(SubsetSpec(image_dir=tmp_path))
    assert keys(index) == ["C.webp", "a.Jpg", "b.PNG", "d.gif", "e.bmp", "f.TIFF", "g.jpeg"]
    assert index.rejected == ()
    item = index.items[0]
    status = item.path.stat()
    assert (item.size, item.caption) == ((64, 48), "words")
    assert (item.file_bytes, item.mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    "name",
    [
        "[brackets] (1).png",
        "with space.png",
        "日本語の絵.png",
        "🐈‍⬛.png",
        "% {x} $HOME.png",
        "a.b.c.png",
    ],
)
def test_unusual_names_are_ordinary_names(tmp_path, name):
    captioned(tmp_path, name)
    assert keys(index_of(SubsetSpec(image_dir=tmp_path))) == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["line\nend.png", "back\\slash.png", 'quo"te.png', "tab\t.png"])
def test_names_that_only_unix_allows_are_ordinary_names(tmp_path, name):
    captioned(tmp_path, name)
    assert keys(index_of(SubsetSpec(image_dir=tmp_path))) == [name]


def test_a_caption_in_another_unicode_form_than_its_image_is_found(tmp_path):
    picture(tmp_path / unicodedata.normalize("NFC", "é.png"))
    (tmp_path / unicodedata.normalize("NFD", "é.caption")).write_text("an accent")
    assert index_of(SubsetSpec(image_dir=tmp_path)).items[0].caption == "an accent"


def test_subfolders_are_read_when_asked_and_named_when_not(tmp_path):
    captioned(tmp_path, "z.png")
    captioned(tmp_path / "below" / "deep", "a.png")
    assert keys(index_of(SubsetSpec(image_dir=tmp_path, recursive=True))) == [
        "below/deep/a.png",
        "z.png",
    ]
    flat = index_of(SubsetSpec(image_dir=tmp_path))
    assert keys(flat) == ["z.png"]
    assert "1 subfolder not looked into: below" in notices(flat)


def test_links_in_a_circle_end_and_are_told(tmp_path):
    captioned(tmp_path / "a", "x.png")
    (tmp_path / "a" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    index = index_of(SubsetSpec(image_dir=tmp_path, recursive=True))
    assert keys(index) == ["a/x.png"]
    assert "1 folder reached a second time by a link, read once" in notices(index)


def test_hidden_files_are_passed_over_and_counted(tmp_path):
    captioned(tmp_path, "a.png", "._a.png")
    index = index_of(SubsetSpec(image_dir=tmp_path))
    assert keys(index) == ["a.png"]
    assert "1 image or folder passed over, being hidden" in notices(index)


def test_each_broken_file_is_rejected_with_a_reason_in_words(tmp_path):
    captioned(tmp_path, "good.png", "cut.png", "cut.jpg", "cut.webp", "small.png")
    for name, num_bytes in (("cut.png", 20), ("cut.jpg", 11), ("cut.webp", 22)):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:num_bytes])
    (tmp_path / "text.png").write_text("this is a text, not a picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "noise.jpg").write_bytes(bytes(range(256)))
    (tmp_path / "half.gif").write_bytes(b"GIF89a\1")
    picture(tmp_path / "small.png", (1, 1))
    monstrous_png(tmp_path / "huge.png")
    index = index_of(SubsetSpec(image_dir=tmp_path))
    assert keys(index) == ["good.png", "small.png"]
    told = reasons(index)
    assert told["cut.png"] == told["cut.jpg"] == told["cut.webp"]
    assert told["cut.png"] == "the file is cut off within its header"
    assert told["text.png"].startswith("the file holds text, not a picture")
    assert told["empty.png"] == "the file is empty (0 bytes)"
    assert told["noise.jpg"].startswith("the content is not that of a picture")
    assert told["half.gif"].startswith("the header cannot be read")
    assert told["huge.png"].startswith("30000 x 30000 px are 900 million pixels, more than the")
    _, too_small = plan_buckets(index, [BucketSettings(resolution=(64, 64), min_bucket_reso=64)])
    assert [entry.path.name for entry in too_small] == ["small.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_named_like_an_image_does_not_hang(tmp_path):
    captioned(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    index = index_of(SubsetSpec(image_dir=tmp_path))
    assert reasons(index) == {"pipe.png": "not a file but a device or a pipe"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_to_a_file_that_is_gone_is_rejected(tmp_path):
    captioned(tmp_path, "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "No such file" in reasons(index_of(SubsetSpec(image_dir=tmp_path)))["gone.png"]


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
def test_only_the_header_is_read(tmp_path, extension):
    captioned(tmp_path, f"a{extension}")
    path = picture(tmp_path / f"a{extension}", (800, 600))
    content = path.read_bytes()
    # Nothing after the header is a picture any more.
    path.write_bytes(content[:700] if extension == ".jpg" else content[:60])
    assert index_of(SubsetSpec(image_dir=tmp_path)).items[0].size == (800, 600)


def test_a_missing_folder_is_an_error_that_says_how_far_the_path_goes(tmp_path):
    with pytest.raises(DataError, match="there is no such folder") as caught:
        index_of(SubsetSpec(image_dir=tmp_path / "no" / "where"))
    assert f"{tmp_path} is there" in str(caught.value)


def test_a_windows_path_in_double_quotes_is_recognised():
    with pytest.raises(DataError, match=r"write Windows paths in '\.\.\.' or with /"):
        index_of(SubsetSpec(image_dir=Path("D:\train\new")))


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.zip").write_text("x")
    with pytest.raises(DataError, match=r"the folder holds no images \(found: .txt 1, .zip 1\)"):
        index_of(SubsetSpec(image_dir=tmp_path))
    captioned(tmp_path / "below", "a.png")
    with pytest.raises(DataError, match="its subfolder below holds 1 image") as caught:
        index_of(SubsetSpec(image_dir=tmp_path))
    assert "recursive = true" in str(caught.value)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    file = picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="this is a file, not a folder"):
        index_of(SubsetSpec(image_dir=file))


def test_no_captions_at_all_is_an_error_that_names_the_other_extensions(tmp_path):
    captioned(tmp_path, "a.png", "b.png", extension=".txt")
    captioned(tmp_path, "c.png", extension=".tags")
    with pytest.raises(DataError) as caught:
        index_of(SubsetSpec(image_dir=tmp_path, caption_extension=".caption"))
    message = str(caught.value)
    assert 'not one has a caption in a file "<name>.caption"' in message
    assert "2 .txt files, 1 .tags file" in message
    assert 'set caption_extension = ".txt"' in message


def test_all_mistakes_of_all_subsets_are_told_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        index_of(SubsetSpec(image_dir=tmp_path / "a"), SubsetSpec(image_dir=tmp_path / "empty"))
    assert len(caught.value.problems) == 2


def test_class_tokens_stand_in_for_missing_captions(tmp_path):
    picture(tmp_path / "a.png")
    spec = SubsetSpec(image_dir=tmp_path, class_tokens="sks cat")
    assert index_of(spec).items[0].caption == "sks cat"
    assert index_of(replace(spec, class_tokens="")).items[0].caption == ""


def test_some_missing_captions_are_counted_with_examples(tmp_path):
    captioned(tmp_path, "a.png")
    for name in "bcdef":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "f.caption").write_text("  \n")
    index = index_of(SubsetSpec(image_dir=tmp_path))
    assert "5 of 6 images without a caption" in notices(index)
    assert "b.png, c.png, d.png and 2 more" in notices(index)
    assert [item.caption for item in index.items] == ["words", "", "", "", "", ""]


def test_captions_may_have_a_mark_in_front_or_lack_the_dot_of_their_extension(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("\ufeffein Mädchen".encode())
    spec = SubsetSpec(image_dir=tmp_path, caption_extension="txt")
    assert index_of(spec).items[0].caption == "ein Mädchen"


def test_a_caption_that_is_not_utf8_rejects_its_image_by_name(tmp_path):
    captioned(tmp_path, "a.png", "b.png")
    (tmp_path / "b.caption").write_bytes("日本".encode("cp932"))
    told = reasons(index_of(SubsetSpec(image_dir=tmp_path)))
    assert told == {"b.png": "its caption file b.caption is not UTF-8 (byte 0); save it as UTF-8"}


def test_several_lines_are_kept_for_wildcards_and_told_otherwise(tmp_path):
    captioned(tmp_path, "a.png", caption="one\n\ntwo\n")
    index = index_of(SubsetSpec(image_dir=tmp_path))
    assert index.items[0].caption == "one"
    assert "1 caption file with several lines, of which only the first is read" in notices(index)
    words = WordRules(enable_wildcard=True)
    assert index_of(SubsetSpec(image_dir=tmp_path, words=words)).items[0].caption == "one\ntwo"


def test_face_coordinates_in_the_image_name_may_be_missing_from_the_caption_file(tmp_path):
    picture(tmp_path / "girl_10_20_30_40.png")
    (tmp_path / "girl.caption").write_text("a face")
    assert index_of(SubsetSpec(image_dir=tmp_path)).items[0].caption == "a face"


def test_no_usable_image_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="not one of 1 image can be used") as caught:
        index_of(SubsetSpec(image_dir=tmp_path))
    assert "the file is empty" in str(caught.value)


def test_a_subset_given_twice_or_without_repeats_is_left_out_with_a_notice(tmp_path):
    captioned(tmp_path, "a.png")
    spec = SubsetSpec(image_dir=tmp_path)
    index = index_of(spec, spec, replace(spec, num_repeats=0))
    assert len(index.items) == 1
    assert "the dataset has it already" in notices(index)
    assert "num_repeats is below 1" in notices(index)


def test_one_folder_in_two_datasets_is_used_in_both(tmp_path):
    captioned(tmp_path, "b.png", "a.png")
    spec = SubsetSpec(image_dir=tmp_path, num_repeats=3)
    index = build_index([[spec], [spec]], emit=lambda event: None)
    found = [(item.dataset, item.subset, item.key, item.num_repeats) for item in index.items]
    assert found == [(0, 0, "a.png", 3), (0, 0, "b.png", 3), (1, 0, "a.png", 3), (1, 0, "b.png", 3)]


def test_regularisation_images_are_repeated_until_they_are_as_many(tmp_path):
    captioned(tmp_path / "own", "a.png", "b.png", "c.png", "d.png", "e.png")
    captioned(tmp_path / "reg", "r.png", "s.png")
    index = index_of(
        SubsetSpec(image_dir=tmp_path / "own"), SubsetSpec(image_dir=tmp_path / "reg", is_reg=True)
    )
    assert [item.num_repeats for item in index.items] == [1] * 5 + [3, 2]


def test_progress_and_rejections_are_emitted(tmp_path):
    captioned(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes(b"")
    events: list[Event] = []
    index_of(SubsetSpec(image_dir=tmp_path), emit=events.append)
    assert events[0] == StageStarted(stage="index", total=3, unit="images")
    assert StageProgress(stage="index", done=3) in events
    assert [e.path for e in events if isinstance(e, ItemRejected)] == [str(tmp_path / "c.png")]
    assert isinstance(events[-1], StageFinished)
    assert events[-1].done == 3


def test_the_index_is_the_same_however_many_threads_read(tmp_path):
    captioned(tmp_path, *(f"{number}.png" for number in range(20)))
    spec = SubsetSpec(image_dir=tmp_path)
    indices = [build_index([[spec]], emit=lambda event: None, max_workers=n) for n in (1, 8)]
    assert indices[0] == indices[1]


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_metadata_takes_the_place_of_caption_files(tmp_path):
    captioned(tmp_path, "a.png", caption="not read")
    meta = write_json(tmp_path / "m.json", {"a": {"caption": "a girl", "tags": "1girl, stage"}})
    index = index_of(SubsetSpec(image_dir=tmp_path, metadata_file=meta))
    assert [(item.key, item.caption) for item in index.items] == [("a.png", "a girl,1girl, stage")]


def test_metadata_without_any_words_is_an_error(tmp_path):
    picture(tmp_path / "a.png")
    meta = write_json(tmp_path / "m.json", {"a": {"image_size": [64, 48]}})
    with pytest.raises(DataError, match="not one has a caption or tags in the metadata"):
        index_of(SubsetSpec(image_dir=tmp_path, metadata_file=meta))


def test_metadata_whose_keys_fit_no_image_is_an_error_that_shows_both(tmp_path):
    picture(tmp_path / "there.png")
    meta = write_json(tmp_path / "m.json", {"other": {"caption": "x"}})
    with pytest.raises(DataError, match="none of the 1 key fits an image") as caught:
        index_of(SubsetSpec(image_dir=tmp_path, metadata_file=meta))
    assert "keys: other; images there: there.png" in str(caught.value)


def test_keys_without_an_image_and_images_without_a_key_are_told(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "left.png")
    meta = write_json(tmp_path / "m.json", {"a": {"caption": "x"}, "gone": {"caption": "y"}})
    index = index_of(SubsetSpec(image_dir=tmp_path, metadata_file=meta))
    assert keys(index) == ["a.png"]
    assert "1 key of the metadata without an image: gone" in notices(index)
    assert "1 image of" in notices(index)
    assert "without a key in the metadata, not used: left.png" in notices(index)


def test_a_stem_that_two_images_share_rejects_both(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        picture(tmp_path / name)
    meta = write_json(tmp_path / "m.json", {"a": {"caption": "x"}, "b": {"caption": "y"}})
    index = index_of(SubsetSpec(image_dir=tmp_path, metadata_file=meta))
    assert keys(index) == ["b.png"]
    assert set(reasons(index)) == {"a.png", "a.jpg"}
    assert 'the metadata key "a" fits' in reasons(index)["a.png"]


def test_a_broken_or_missing_metadata_file_is_an_error_with_its_place(tmp_path):
    picture(tmp_path / "a.png")
    spec = SubsetSpec(image_dir=tmp_path, metadata_file=tmp_path / "m.json")
    with pytest.raises(DataError, match=r"the metadata file cannot be read \(No such file"):
        index_of(spec)
    (tmp_path / "m.json").write_text('{\n "a": {"caption": "x"\n "tags": "y"}}')
    with pytest.raises(DataError, match=r"m\.json:3, column 2: not JSON"):
        index_of(spec)


def test_fifty_thousand_images_in_one_folder_are_all_there(tmp_path):
    first = picture(tmp_path / "00000.png", (40, 30))
    for number in range(1, 50_000):
        os.link(first, tmp_path / f"{number:05d}.png")
    index = index_of(SubsetSpec(image_dir=tmp_path, class_tokens="x"))
    assert len(index.items) == 50_000
    assert not index.rejected
    assert index.items[49_999].key == "49999.png"
    assert index.items[49_999].size == (40, 30)
