"""Every key of a file has the line it stands on."""

import tomllib

import pytest

from sdft.config.positions import json_lines, line_of, toml_lines


def test_tables_arrays_and_dotted_keys_have_their_lines():
    text = (
        "# a comment\n"
        "a = 1\n"
        "\n"
        "[general]\n"
        '"quoted key" = "x # no comment"\n'
        "b.c = 2\n"
        "[[datasets]]\n"
        "resolution = [512, 768] # px\n"
        "  [[datasets.subsets]]\n"
        "  image_dir = '''two\n"
        "lines [x] = '''\n"
        "  num_repeats = 2\n"
        "[[datasets]]\n"
        "[[datasets.subsets]]\n"
        "num_repeats = 3\n"
    )
    assert tomllib.loads(text)
    lines = toml_lines(text)
    assert lines["a",] == 2
    assert lines["general", "quoted key"] == 5
    assert lines["general", "b", "c"] == 6
    assert lines["datasets",] == 7
    assert lines["datasets", 0, "resolution"] == 8
    assert lines["datasets", 0, "subsets", 0, "image_dir"] == 10
    assert lines["datasets", 0, "subsets", 0, "num_repeats"] == 12
    assert lines["datasets", 1] == 13
    assert lines["datasets", 1, "subsets", 0, "num_repeats"] == 15


def test_inline_tables_over_several_lines_have_their_lines():
    text = 'x = [ # first\n  { a = 1, b = "}" },\n  { a = 2 },\n]\ny = """"q""""\nz = 3\n'
    lines = toml_lines(text)
    assert lines["x", 0, "b"] == 2
    assert lines["x", 1, "a"] == 3
    assert lines["y",] == 5
    assert lines["z",] == 6


def test_json_has_lines_too():
    lines = json_lines('{\n "datasets": [\n  {"subsets": [{"image_dir": "a\\"b"}],\n   "x": 1}]\n}')
    assert lines["datasets", 0, "subsets", 0, "image_dir"] == 3
    assert lines["datasets", 0, "x"] == 4


def test_escaped_keys_are_known_by_their_text():
    assert toml_lines('"a\\"b" = 1\n"\\U0001F600" = 2\n') == {('a"b',): 1, ("\U0001f600",): 2}
    assert json_lines('{"\\ud83d\\ude00": 1}') == {("\U0001f600",): 1}


def test_a_key_that_is_missing_points_at_the_table_around_it():
    lines = toml_lines("\n[[datasets]]\nbatch_size = 1\n")
    assert line_of(lines, ("datasets", 0, "resolution")) == 2
    assert line_of(lines, ("other",)) is None


@pytest.mark.parametrize("text", ["", "\n", "# only", "a = 1", "[t]", "a = []", "a = {}"])
def test_small_texts_are_read_to_their_end(text):
    tomllib.loads(text)
    toml_lines(text)
