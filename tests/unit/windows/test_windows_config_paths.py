"""What paths in a settings file mean on Windows, by Python's own rules for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest

from sdft.config.load import load_config
from sdft.config.paths import meant_path, windows_problem
from sdft.errors import ConfigError

CWD = PureWindowsPath(r"D:\work")
FOLDER = PureWindowsPath(r"E:\sets\cats")
HOME = PureWindowsPath("C:\\Users\\\u7530\u4e2d")
LONG = "\\".join(["long folder"] * 26)


def meant(text: str, exists: Callable[[PureWindowsPath], bool] = lambda path: False) -> str:
    return str(meant_path(text, CWD, FOLDER, home=lambda: HOME, exists=exists))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("images", r"D:\work\images"),
        (r"images\cats", r"D:\work\images\cats"),
        ("images/cats", r"D:\work\images\cats"),
        (r"..\images\.\cats", r"D:\images\cats"),
        (r"C:\pics\..\cats", r"C:\cats"),
        ("c:/pics/cats", r"c:\pics\cats"),
        (r"\pics", r"D:\pics"),
        (r"\\server\share\cats", r"\\server\share\cats"),
        ("//server/share/cats", r"\\server\share\cats"),
        (r"\\?\D:\very\long", r"\\?\D:\very\long"),
        (r"~\pics", r"C:\Users\田中\pics"),
        ("~/pics", r"C:\Users\田中\pics"),
        ("~pics", r"D:\work\~pics"),
        ("D:\\" + LONG, "D:\\" + LONG),
        (LONG, "D:\\work\\" + LONG),
    ],
)
def test_a_path_means_on_windows_what_windows_users_mean(text: str, path: str) -> None:
    assert meant(text) == path


def test_it_starts_from_the_file_where_it_exists_only_there() -> None:
    there = {FOLDER / "images", FOLDER / "~" / "odd"}
    assert meant(r".\images", there.__contains__) == r"E:\sets\cats\images"
    assert meant("images", {CWD / "images", *there}.__contains__) == r"D:\work\images"


def test_a_folder_named_as_home_is_taken_where_it_exists() -> None:
    assert meant(r"~\odd", {CWD / "~" / "odd"}.__contains__) == r"D:\work\~\odd"


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        (r"D:cats", "drive D: was left", r"D:\cats"),
        (r"d:..\cats", "drive d: was left", "d:\\"),
        (r"D:\out\con", "a device: con", "otherwise"),
        (r"out\NUL.txt\x", "a device: NUL.txt", "otherwise"),
        (r"\\server\share\lpt1", "a device: lpt1", "otherwise"),
        ("aux. ", "a device: aux. ", "otherwise"),
    ],
)
def test_what_windows_would_take_otherwise_is_named(text: str, what: str, fix: str) -> None:
    problem = windows_problem("output_dir", text, "config.toml:3")
    assert problem is not None
    assert what in problem.what
    assert fix in problem.fix
    assert problem.where == "config.toml:3"


@pytest.mark.parametrize(
    "text", [r"D:\cats", "D:/cats", r"\\server\con\cats", r"console\common", r"\\?\D:\x", "."]
)
def test_other_paths_are_taken(text: str) -> None:
    assert windows_problem("output_dir", text, "") is None


def problems_of(tmp_path: Path, line: str) -> list[str]:
    path = tmp_path / "config.toml"
    path.write_text(line + "\n", "utf-8")
    try:
        load_config(path, {}, tmp_path)
    except ConfigError as error:
        return [f"{problem.what} -> {problem.fix}" for problem in error.problems]
    return []


def test_the_check_asks_windows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "output_dir = 'D:cats'"
    assert not any("was left" in problem for problem in problems_of(tmp_path, line))
    monkeypatch.setattr("sdft.config.values.is_windows", lambda: True)
    assert any("was left" in problem for problem in problems_of(tmp_path, line))


def problems_of_folder(tmp_path: Path, written: str) -> list[str]:
    (tmp_path / "dataset.toml").write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{written}'\n", "utf-8"
    )
    return problems_of(tmp_path, "dataset_config = 'dataset.toml'")


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        (r"images\cats", "separated by / here"),
        (r"D:\images\cats", "is a path of Windows"),
        (r"\\server\share\cats", "is a path of Windows"),
        (r"~\cats", "no such folder"),
    ],
)
def test_a_file_from_windows_is_understood_elsewhere(
    tmp_path: Path, written: str, advice: str
) -> None:
    (tmp_path / "images" / "cats").mkdir(parents=True)
    found = problems_of_folder(tmp_path, written)
    assert any(advice in problem for problem in found), found


def test_a_home_that_nobody_knows_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    found = problems_of(tmp_path, "output_dir = '~/out'")
    assert any("knows none" in problem for problem in found)
