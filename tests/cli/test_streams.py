"""Every command on consoles whose code page lacks letters of the names it has to print."""

from __future__ import annotations

import io
import json
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from sdft.cli.app import COMMANDS, run
from sdft.events import RunStarted, StageProgress, StageStarted, StepDone
from sdft.rundir import RunDir
from sdft.views.console import console_view
from tests.unit.views.run_folder import make_run

CODE_PAGES = ("cp932", "cp1252")
ODD = "\u732b\u00e9\U0001f408"
"""Of these cp932 lacks the second and third, cp1252 the first and third, both the cat."""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture(params=CODE_PAGES)
def on_console(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], Ran]:
    """Run a command with streams as Python opens them on a console: they refuse letters."""

    def on_console(words: list[str]) -> Ran:
        raw = [io.BytesIO(), io.BytesIO()]
        out, err = [
            io.TextIOWrapper(one, encoding=request.param, errors="strict", newline="\r\n")
            for one in raw
        ]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", io.StringIO(""))
            code = run(words)
        out.flush()
        err.flush()
        return Ran(code, *(one.getvalue().decode(request.param) for one in raw))

    return on_console


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every name and every word has letters that code pages lack."""
    folder = tmp_path / ODD
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{ODD}{number}.png")
        (folder / f"{ODD}{number}.caption").write_text(f"{ODD}, a cat\n", "utf-8")
    (folder / "broken.png").write_bytes(b"nothing")
    (tmp_path / f"{ODD}.bat").write_text(
        f'python fine_tune.py --train_data_dir="{ODD}" --output_dir={ODD} --{ODD}=1\n', "utf-8"
    )
    (tmp_path / f"{ODD}.safetensors").write_bytes(b"no model")
    make_run(tmp_path, f"{ODD}-a", num_steps=5)
    make_run(tmp_path, f"{ODD}-b", num_steps=5, lr=2e-5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sdft.jobs.doctor.probe", dict)
    return tmp_path


MODEL = f"--pretrained_model_name_or_path {ODD}.safetensors"
IMAGES = f"--train_data_dir {ODD} --resolution 64 --max_rejected_share 0.9"
LINES = {
    "wizard": ("wizard", 2),
    "guide": ("guide --lang en", 0),
    "demo": (f"demo {ODD}", 2),
    "doctor": ("doctor", 0),
    "caption": (f"caption {ODD} --model {ODD}/none", 2),
    "tag": (f"tag {ODD} --model {ODD}/none", 2),
    "metadata": (f"metadata merge {ODD} --out {ODD}.json", 0),
    "bucket": (f"bucket {IMAGES}", 0),
    "words": (f"words {IMAGES}", 0),
    "cache-latents": (f"cache-latents {IMAGES} {MODEL}", 4),
    "train": (f"train {IMAGES} {MODEL} --print-config", 0),
    "watch": (f"watch {ODD}-none", 2),
    "ctl": (f"ctl {ODD}-a.run save", 2),
    "report": (f"report {ODD}-a.run", 0),
    "runs": ("runs .", 0),
    "diff": (f"diff {ODD}-a.run {ODD}-b.run", 0),
    "plan": (f"plan {IMAGES} {MODEL} --output_dir {ODD}", 4),
    "prove-resume": (f"prove-resume {ODD}.toml", 2),
    "sample": (f"sample {ODD}.safetensors --prompt {ODD}", 4),
    "convert": (f"convert {ODD}.safetensors {ODD}.ckpt", 4),
    "verify": (f"verify {ODD}.safetensors", 4),
    "bench": (f"bench {ODD}", 2),
    "import": (f"import {ODD}.bat", 0),
}
ANY_CODE = {0, 2, 3, 4}


def line_of(command: str) -> tuple[list[str], set[int]]:
    """Return a line for a command and how it may end; a new one gets a word that is a file."""
    line, code = LINES.get(command, (f"{command} {ODD}.safetensors", None))
    return line.split(" "), ANY_CODE if code is None else {code}


SILENT_ABOUT_NAMES = ("wizard", "guide", "doctor")
WITHOUT_JSON = ("wizard", "watch", "demo")
"""For people; and `demo` refuses the line above before it has anything to say."""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("project")
def test_a_command_prints_what_the_code_page_lacks(command, on_console) -> None:
    line, expected = line_of(command)
    ran = on_console(line)
    assert ran.code in expected, ran.err
    assert "Traceback" not in ran.err
    assert "UnicodeEncodeError" not in ran.err
    if command in LINES and command not in SILENT_ABOUT_NAMES:
        assert "\\u0001f408" in (ran.out + ran.err).lower(), ran.out + ran.err


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in WITHOUT_JSON])
@pytest.mark.usefixtures("project")
def test_json_is_one_line_of_ascii(command, on_console) -> None:
    line, expected = line_of(command)
    ran = on_console([*line, "--json"])
    assert ran.code in expected, ran.err
    assert ran.out.isascii()
    if command == "train":
        # What --print-config prints is TOML: in ASCII too, as it may be redirected into a file.
        assert ODD in tomllib.loads(ran.out)["pretrained_model_name_or_path"]
        return
    (only,) = ran.out.splitlines()
    assert isinstance(json.loads(only), dict)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("on_console", ["ascii"], indirect=True)
def test_help_is_plain_ascii(command, on_console) -> None:
    ran = on_console([command, "--help"])
    assert ran.code == 0
    assert ran.out.isascii()
    assert "\\u" not in ran.out


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def fake_progress(tell: Callable[[float, object], None]) -> None:
    run_started = RunStarted(
        name=ODD, steps=4, epochs=1, first_step=1, images=8, effective_batch=2, device="cpu",
        model=ODD, command="c", version="0",
    )  # fmt: skip
    tell(0.0, StageStarted(stage=ODD, total=10, unit="images"))
    tell(0.5, StageProgress(stage=ODD, done=5))
    tell(1.0, run_started)
    for number in (1, 2):
        step = StepDone(
            step=number, epoch=1, loss=0.25, lr=1e-5, bucket=(64, 64), grad_norm=None, items=2,
            duration_s=1.0,
        )  # fmt: skip
        tell(1.0 + number, step)


@pytest.mark.parametrize("encoding", CODE_PAGES)
def test_bars_are_drawn_with_signs_that_the_code_page_has(encoding, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    raw = io.BytesIO()
    terminal = Terminal(raw, encoding=encoding, errors="backslashreplace", newline="")
    with console_view(stream=terminal) as tell:
        fake_progress(tell)
    terminal.flush()
    drawn = raw.getvalue().decode(encoding)
    assert "epoch 1" in drawn
    # Neither a block or line drawing glyph nor one that was replaced by its number.
    assert not re.search("[\u2500-\u259f\u2800-\u28ff]", drawn)
    assert not re.search(r"\\u2[5-9a-f]", drawn)
    assert re.search("-{10}", drawn)


def test_a_run_lies_under_a_name_with_odd_letters(project: Path) -> None:
    """The fixture is what it says: else the tests above would print nothing odd."""
    assert RunDir(project / f"{ODD}-a.run").read_status() is not None or list(project.glob("*.run"))
    for encoding in CODE_PAGES:
        with pytest.raises(UnicodeEncodeError):
            ODD.encode(encoding)


def test_wildcards_of_runs_are_looked_up_by_the_program(project: Path) -> None:
    from sdft.cli.common import looked_up

    names = [path.name for path in looked_up([Path("*.run")])]
    assert names == [f"{ODD}-a.run", f"{ODD}-b.run"]
    assert looked_up([Path("*.none")]) == [Path("*.none")]
    (project / "[a].run").mkdir()
    assert looked_up([Path("[a].run")]) == [Path("[a].run")]
