"""`sdft guide`, and that what the guides tell people to type is understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sdft.cli.app import COMMANDS, run
from sdft.config.load import load_config
from sdft.config.preset import PRESETS
from sdft.formats.script_lines import BAT, read_commands
from sdft.guide import guide_text

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_links_to_the_japanese_guide_in_its_first_line():
    first = (ROOT / "README.md").read_text("utf-8").splitlines()[0]
    (target,) = re.findall(r"\]\((\S+)\)", first)
    assert (ROOT / target).read_text("utf-8") == guide_text("ja")


def test_each_language_has_its_guide(sdft, monkeypatch):
    assert sdft("guide", "--lang", "en").out == guide_text("en")
    assert sdft("guide").out == guide_text("en")
    assert sdft("guide", "--lang", "ja").out == guide_text("ja")
    monkeypatch.setenv("SDFT_LANG", "ja")
    assert sdft("guide").out == guide_text("ja")
    assert guide_text("ja") != guide_text("en")


def test_a_guide_goes_to_a_file_or_into_json(sdft, tmp_path):
    assert sdft("guide", "--lang", "ja", "--out", "guide.md").out == "guide.md\n"
    assert (tmp_path / "guide.md").read_text("utf-8") == guide_text("ja")
    assert sdft("guide", "--lang", "ja", "--json").result["text"] == guide_text("ja")


def test_another_language_is_answered_with_those_that_there_are(sdft):
    ran = sdft("guide", "--lang", "de")
    assert ran.code == 2
    assert "en or ja" in ran.err


def test_a_console_without_japanese_letters_says_so_and_how_to_read_it_all_the_same():
    def guide(encoding, *words):
        environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
        line = [sys.executable, "-m", "sdft", "guide", *words]
        return subprocess.run(line, capture_output=True, env=environment, check=False)

    refused = guide("cp1252", "--lang", "ja")
    assert refused.returncode == 3
    assert refused.stdout == b""
    assert b"sdft guide --lang ja --out guide.md" in refused.stderr
    assert guide("cp1252", "--lang", "en").returncode == 0
    shown = guide("cp932", "--lang", "ja")
    assert shown.stdout.decode("cp932").replace("\r\n", "\n") == guide_text("ja")


def lines_to_type() -> list[str]:
    """Return what the Japanese guide tells a person to type."""
    blocks = re.sub(r"```toml.*?```", "", guide_text("ja"), flags=re.DOTALL)
    lines = re.findall(r"^ {4}(sdft .*)$|^(sdft .*)$", blocks, flags=re.MULTILINE)
    inline = re.findall(r"`(sdft [a-z][^`]*)`", blocks)
    return [*(one or other for one, other in lines), *inline]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_japanese_guide_names_only_options_that_there_are(command, capsys):
    asked = [line for line in lines_to_type() if line.split()[1] == command]
    if not asked:
        return
    takes_settings = command in ("train", "bucket", "words", "cache-latents", "prove-resume")
    assert run([command, "--help-all" if takes_settings else "--help"]) == 0
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out)) | {"--help", "--help-all"}
    known = {name.replace("-", "_") for name in known}
    for line in asked:
        named = re.findall(r"(?<= )--[\w-]+", line)
        groups = {"metadata": {"__out"}, "import": set()}.get(command, set())
        assert {name.replace("-", "_") for name in named} <= known | groups, line


def test_the_japanese_guide_knows_every_command_and_preset_it_names():
    guide = guide_text("ja")
    for line in lines_to_type():
        assert line.split()[1] in COMMANDS or line.split()[1].startswith("-"), line
    assert all(f"`{name}`" in guide for name in PRESETS)
    for name in (
        "doctor",
        "demo",
        "wizard",
        "caption",
        "tag",
        "metadata",
        "bucket",
        "plan",
        "train",
    ):
        assert f"sdft {name}" in guide


def test_the_toml_of_the_japanese_guide_is_read(tmp_path):
    dataset, config = re.findall(r"```toml\n(.*?)```", guide_text("ja"), flags=re.DOTALL)
    tomllib.loads(config)
    # The folder and the model, which are not here, in the same quotes.
    (tmp_path / "cats").mkdir()
    (tmp_path / "model.safetensors").touch()
    dataset = dataset.replace(r"'D:\pictures\cats'", f"'{tmp_path / 'cats'}'")
    config = config.replace(
        r"'D:\models\v1-5-pruned-emaonly.safetensors'", f"'{tmp_path / 'model.safetensors'}'"
    )
    (tmp_path / "dataset.toml").write_text(dataset, "utf-8")
    (tmp_path / "config.toml").write_text(config, "utf-8")
    loaded = load_config(tmp_path / "config.toml", {}, tmp_path, for_training=True)
    assert loaded.training.optimizer_type == "AdamW8bit"
    assert loaded.datasets[0].subsets[0].image_dir == tmp_path / "cats"


def batch_file(text: str) -> str:
    (found,) = re.findall(r"```bat\n(.*?)```", text, flags=re.DOTALL)
    return found


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_batch_file_of_the_guide_gives_the_words_that_it_means(language):
    """Read by what reads batch files for `sdft import`: percent signs, carets, quotes."""
    read = read_commands(batch_file(guide_text(language)), BAT)
    lines = [command.words for command in read if command.words[0] == "sdft"]
    assert lines == [
        ("sdft", "train", "config.toml", "--resume", "auto", "--output_name", "cats & dogs"),
        ("sdft", "sample", r"out\cats & dogs.safetensors", "--prompt", "a cat, 50% gray"),
    ]
    assert [command.unknown for command in read if command.words[0] == "sdft"] == [(), ()]


def test_no_line_of_the_readme_needs_other_quotes_on_windows():
    """What is shown for every system has none of the quotes and signs that cmd takes otherwise."""
    readme = re.sub(r"```.*?```", "", guide_text("en"), flags=re.DOTALL)
    lines = re.findall(r"^ {4,}(sdft .*|python -m .*)$", readme, flags=re.MULTILINE)
    assert len(lines) > 20
    for line in lines:
        typed = line.partition("  #")[0]
        assert not set("'%^|<;`$") & set(re.sub(r'"[^"]*"', "", typed)), line
