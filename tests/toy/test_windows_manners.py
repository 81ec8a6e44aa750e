"""A training on Windows, stood in for: its window is closed; its console lacks letters."""

from __future__ import annotations

import ctypes
import io
import shutil
import sys
import threading
import types

from sdft import windows
from sdft.cli.app import run as sdft
from sdft.errors import StoppedResumable
from sdft.events import StepDone
from tests.toy.toy_runs import CONSTANT


def test_a_window_that_is_closed_leaves_a_state_from_which_the_run_goes_on(
    toy, tmp_path, monkeypatch
):
    handlers, answered = [], threading.Event()

    def set_handler(handler, add):
        (handlers.append if add else handlers.remove)(handler)
        return 1

    kernel = types.SimpleNamespace(
        SetConsoleCtrlHandler=set_handler, SetThreadExecutionState=lambda flags: 1
    )
    monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE, raising=False)
    monkeypatch.setattr(windows, "is_windows", lambda: True)
    monkeypatch.setattr(windows, "STAY_S", 0.5)

    def close():
        handlers[0](windows.CTRL_CLOSE_EVENT)
        answered.set()

    def listen(event):
        if isinstance(event, StepDone) and event.step == 2:
            threading.Thread(target=close).start()
            # The handler asks at once and only then waits; the next step's end hears it.
            threading.Event().wait(0.1)

    closed = toy(max_train_steps=4, listen=listen, **CONSTANT)
    assert isinstance(closed.error, StoppedResumable)
    assert closed.error.exit_code == 5
    (state,) = (tmp_path / "out" / "toy.run" / "states").glob("step*")
    assert state.name in ("step00000002", "step00000003")
    assert answered.wait(10)
    assert handlers == []

    resumed = toy(max_train_steps=4, resume="auto", **CONSTANT)
    assert resumed.error is None
    assert min(resumed.losses) in (3, 4)


def test_a_training_says_all_it_says_on_a_console_without_the_letters(
    prepared, tmp_path, monkeypatch
):
    # Its letters are fewer than those of cp932; `tests/cli/test_streams.py` has both.
    encoding = "cp1252"
    odd = "\u732b\u00e9\U0001f408"
    folder = tmp_path / odd
    shutil.copytree(prepared / "images", folder / odd)
    shutil.copy(prepared / "model.safetensors", folder / f"{odd}.safetensors")
    monkeypatch.chdir(folder)
    raw = [io.BytesIO(), io.BytesIO()]
    out, err = [io.TextIOWrapper(one, encoding=encoding, errors="strict") for one in raw]
    line = ["train", "--train_data_dir", odd, "--caption_extension", ".txt", "--resolution", "64"]
    line += ["--pretrained_model_name_or_path", f"{odd}.safetensors", "--max_train_steps", "1"]
    line += ["--output_dir", odd, "--output_name", odd, "--device", "cpu", "--allow_sleep"]
    line += ["--learning_rate", "1e-5", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = sdft(line)
    out.flush()
    err.flush()
    printed, said = (one.getvalue().decode(encoding) for one in raw)
    assert code == 0, said
    assert (folder / odd / f"{odd}.safetensors").is_file()
    assert printed.isascii()
    assert "\\ud83d\\udc08" in printed
    assert "step 1 of 1" in said
