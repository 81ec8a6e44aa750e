"""How a hypernetwork and its strength are written on a command line."""

from pathlib import Path

import pytest

from sdft.cli.sample_words import hypernetworks
from sdft.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("x.pt", "x.pt", 1.0),
        ("x.pt:0.8", "x.pt", 0.8),
        ("x.pt:-1", "x.pt", -1.0),
        ("x.pt:.5", "x.pt", 0.5),
        ("x.pt:1e-1", "x.pt", 0.1),
        (r"C:\nets\x.pt", r"C:\nets\x.pt", 1.0),
        (r"C:\nets\x.pt:0.8", r"C:\nets\x.pt", 0.8),
        ("C:/nets/x.pt:2", "C:/nets/x.pt", 2.0),
        ("C:5", "C:5", 1.0),
        ("x.pt:nan", "x.pt:nan", 1.0),
        ("x.pt:strong", "x.pt:strong", 1.0),
    ],
)
def test_what_follows_the_last_colon_is_a_strength_if_it_is_a_number(text, path, strength):
    assert hypernetworks([text]) == [(Path(path), strength)]


def test_a_file_that_is_there_is_taken_by_its_whole_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a:1").touch()
    assert hypernetworks(["a:1", "aa:1"]) == [(Path("a:1"), 1.0), (Path("aa"), 1.0)]


def test_an_empty_text_is_refused():
    with pytest.raises(ConfigError):
        hypernetworks([" "])
