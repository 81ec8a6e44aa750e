from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.main import get_command

from sdft import __version__
from sdft.cli import app as root
from sdft.cli.app import COMMANDS, module_of, run, soften_streams
from sdft.errors import DataError, Interrupted

INTERACTIVE = {"watch", "wizard"}
"""Draw on the whole terminal, so there is nothing to print or to keep quiet."""


def test_every_listed_command_exists_and_says_what_it_does():
    for name in COMMANDS:
        module = import_module(module_of(name))
        command = get_command(module.app)
        # A command of several commands gets its name where it is hung into the root.
        assert command.name == name or getattr(command, "commands", None)


def test_the_root_help_lists_every_command(sdft):
    ran = sdft("--help")
    assert ran.code == 0
    assert all(f"  {name}" in ran.out for name in COMMANDS)
    assert sdft().out == ran.out


def test_the_version_is_printed(sdft):
    assert sdft("--version").out == f"sdft {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(sdft, name):
    ran = sdft(name, "--help")
    assert ran.code == 0
    assert ran.out.isascii()
    assert f"sdft {name}" in ran.out
    if "COMMAND" not in ran.out and name not in INTERACTIVE:
        assert "--json" in ran.out
        assert "--quiet" in ran.out


def test_a_misspelt_command_is_answered_by_the_nearest(sdft):
    ran = sdft("trian")
    assert ran.code == 2
    assert 'no command "trian"' in ran.err
    assert 'did you mean "train"?' in ran.err


def test_a_misspelt_option_of_a_plain_command_is_answered_by_the_nearest(sdft):
    ran = sdft("doctor", "--qiet")
    assert ran.code == 2
    assert "--quiet" in ran.err


def test_a_misspelt_option_of_the_root_exits_with_2(sdft):
    assert sdft("--verson").code == 2


def failing(monkeypatch, error):
    """Put a command that raises in the place of `doctor`."""
    app = typer.Typer()

    @app.command(name="doctor")
    def command() -> None:
        raise error

    monkeypatch.setattr(import_module("sdft.cli.doctor"), "app", app)


def test_an_error_that_a_person_can_mend_is_its_message_and_its_exit_code(sdft, monkeypatch):
    failing(monkeypatch, DataError("not an image", where="a [red]b[/].png", fix="remove it"))
    ran = sdft("doctor")
    assert ran.code == 4
    assert ran.err == "error: a [red]b[/].png: not an image\n  -> remove it\n"
    assert ran.out == ""


def test_with_json_an_error_is_one_object_too(sdft, monkeypatch):
    failing(monkeypatch, DataError("not an image", where="\u3042.png", fix="remove it"))
    app = import_module("sdft.cli.doctor").app
    app.registered_commands[0].context_settings = {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
    }
    assert sdft("doctor", "--json").result == {
        "error": "DataError",
        "exit_code": 4,
        "problems": [{"what": "not an image", "where": "\u3042.png", "fix": "remove it"}],
    }


def test_an_error_of_ours_is_one_line_that_names_it(sdft, monkeypatch):
    failing(monkeypatch, KeyError("colour"))
    ran = sdft("doctor")
    assert ran.code == 1
    assert ran.err.startswith("error: KeyError: 'colour'\n")
    assert "--debug" in ran.err


def test_what_the_system_refuses_is_an_environment_fault(sdft, monkeypatch):
    failing(monkeypatch, PermissionError(13, "Permission denied", "x/y"))
    ran = sdft("doctor")
    assert ran.code == 3
    assert "x/y" in ran.err
    assert "Permission denied" in ran.err


def test_debug_shows_where_an_error_came_from(monkeypatch, capsys):
    failing(monkeypatch, KeyError("colour"))
    assert run(["doctor", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(sdft, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    assert sdft("doctor").code == 130
    failing(monkeypatch, Interrupted("stopped after step 3"))
    assert sdft("doctor").code == 130


def test_control_characters_in_a_message_do_not_reach_the_terminal(sdft, monkeypatch):
    failing(monkeypatch, DataError("not an image", where="a\x1b[2J\udce9.png"))
    assert "a\\x1b[2J\\udce9.png" in sdft("doctor").err


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "ascii"])
def test_a_character_that_the_code_page_lacks_is_shown_by_its_number(monkeypatch, encoding):
    failing(monkeypatch, DataError("no", where="\U0001f600\u3042\u00e9"))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding=encoding))
    assert run(["doctor"]) == 4
    sys.stderr.flush()
    shown = raw.getvalue().decode(encoding)
    assert "\\U0001f600" in shown
    assert shown.encode(encoding)


def test_softening_leaves_streams_alone_that_cannot_be_changed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    soften_streams()
    print("\udce9")


def test_the_module_runs_as_the_command_and_a_reader_that_leaves_is_no_error():
    line = [sys.executable, "-m", "sdft", "train", "--help-all"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("Usage: sdft train")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


def test_the_root_is_a_typer():
    assert isinstance(root.app, typer.Typer)
