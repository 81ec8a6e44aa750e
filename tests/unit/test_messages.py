"""The engine's sentences in Japanese: one for each key, with the places that the code fills."""

from __future__ import annotations

import ast
import json
import string
import sys
from functools import cache
from pathlib import Path

import pytest

import sdft
from sdft import windows
from sdft.errors import DataError, Problem
from sdft.language import LANGUAGES, Words, cells, language_for, language_of, messages, padded

ROOT = Path(sdft.__file__).parent
KINDS = {"Problem", "UserError", "ConfigError", "UnknownName", "EnvironmentFault", "DataError"}
POSITION = {"key": 3, "values": 4}
"""Of the parameters of Problem."""


@cache
def calls() -> tuple[tuple[str, ast.Call], ...]:
    """Return every call in the package that makes a problem or a finding with a key."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and argument(node, "key") is not None:
                name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
                # Errors of other names, such as those of one module, are made with `what`.
                makes_error = any(word.arg == "what" for word in node.keywords)
                if makes_error or name in KINDS | {"replace", "Finding", "self.problem"}:
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return tuple(found)


def argument(call: ast.Call, name: str) -> ast.expr | None:
    named = {word.arg: word.value for word in call.keywords}
    is_problem = isinstance(call.func, ast.Name) and call.func.id == "Problem"
    if is_problem and len(call.args) > POSITION[name]:
        return call.args[POSITION[name]]
    return named.get(name)


def keys_of(call: ast.Call) -> set[str]:
    """Return the keys that a call may use; one that is put together counts by its beginning."""
    key = argument(call, "key")
    assert key is not None
    texts = [node for node in ast.walk(key) if isinstance(node, ast.Constant)]
    return {str(text.value) for text in texts if isinstance(text.value, str) and text.value}


def keyed(kind: str) -> dict[str, ast.Call]:
    is_finding = kind == "finding"
    return {
        key: call
        for _, call in calls()
        if (isinstance(call.func, ast.Name) and call.func.id == "Finding") == is_finding
        for key in keys_of(call)
    }


def told(kind: str) -> set[str]:
    names = {name for name in messages("ja") if name.startswith(f"{kind}.")}
    return {name.removeprefix(f"{kind}.") for name in names}


def fault_keys() -> set[str]:
    from sdft.files import _FAULT_KEYS

    return set(_FAULT_KEYS.values())


def test_every_key_of_an_error_has_its_sentence_and_none_is_left_over() -> None:
    sentences = {name.rpartition(".")[0] for name in told("error")}
    assert sentences == keyed("error").keys() | fault_keys()
    assert len(sentences) > 60
    assert {name.rpartition(".")[2] for name in told("error")} <= {"what", "where", "fix"}
    assert all(f"{key}.what" in told("error") for key in sentences)


def test_every_key_of_a_finding_has_its_sentence_and_none_is_left_over() -> None:
    from sdft.jobs.diagnosis import _GIVES

    packages = [name.partition(".")[0] for name in _GIVES]
    whole = {key for key in keyed("finding") if not key.endswith(".")}
    begun = {key for key in keyed("finding") if key.endswith(".")}
    assert begun == {"gives.", "absent.", "broken."}
    assert told("finding") == whole | {f"{key}{name}" for key in begun for name in packages}


def test_every_place_in_a_sentence_is_filled_by_the_code() -> None:
    filled: dict[str, set[str]] = {}
    for _, call in calls():
        values = argument(call, "values")
        names: set[str] = set()
        if isinstance(values, ast.Dict):
            names = {str(key.value) for key in values.keys if isinstance(key, ast.Constant)}
        for key in keys_of(call):
            given = set(VARIABLES[key]) if isinstance(values, ast.Name) else names
            filled[key] = filled.get(key, given) & given
    filled |= {key: {"reason"} for key in fault_keys()}
    for name, sentence in messages("ja").items():
        kind, _, rest = name.partition(".")
        key = rest.rpartition(".")[0] if kind == "error" else rest
        begun = key.partition(".")[0] + "."
        places = {field for _, field, _, _ in string.Formatter().parse(sentence) if field}
        assert places <= filled.get(key, filled.get(begun, set())), name


VARIABLES = {
    "setting_names_nothing": ("path",),
    "set_twice": ("name", "first"),
    "unknown_key": ("name", "title"),
}
"""What stands in a variable; `test_japanese_errors.py` prints these errors."""


def test_a_problem_is_told_in_the_language_that_is_asked_for() -> None:
    problem = Problem("no such option", "--x", 'did you mean "--y"?', "no_such_option")
    assert Words("en").problem(problem) == problem
    japanese = Words("ja").problem(problem)
    assert japanese.what == "そのようなオプションはありません"
    assert japanese.where == "--x"
    assert japanese.fix == 'もしかして: "--y"'


def test_a_problem_goes_through_json_and_is_told_in_japanese_there_too() -> None:
    """The wizard gets what its commands say as JSON."""
    whole = {"name": "seed", "wanted": "from 0", "shown": "-1"}
    problem = Problem("seed must be from 0; -1 is not", "c.toml:1", "", "wrong_value", whole)
    back = Problem.from_json(json.loads(json.dumps(problem.as_json())))
    assert back == problem
    assert Words("ja").problem(back).what == "seed に -1 は使えません (使える値: from 0)"


def test_a_problem_without_a_key_stays_as_it_is() -> None:
    problem = Problem("something rare", "here", "mend it")
    assert Words("ja").problem(problem) == problem
    assert "key" not in problem.as_json()
    assert DataError("x", key="not_utf8").problems[0].as_json()["key"] == "not_utf8"


@pytest.mark.parametrize(
    ("encoding", "language"),
    [("utf-8", "ja"), ("cp932", "ja"), ("cp1252", "en"), ("ascii", "en"), (None, "en")],
)
def test_japanese_is_printed_where_its_letters_are(encoding: str | None, language: str) -> None:
    assert language_for({"SDFT_LANG": "ja"}, encoding) == language
    assert language_for({"SDFT_LANG": "en"}, encoding) == "en"


def test_columns_are_counted_as_a_terminal_does() -> None:
    assert cells("正常 ok") == 7
    assert padded("問題", 6) == "問題  "


@pytest.mark.parametrize(("asked", "language"), [(0x0411, "ja"), (0x0409, "en"), (0x0407, "en")])
def test_a_japanese_windows_is_spoken_to_in_japanese(
    monkeypatch: pytest.MonkeyPatch, asked: int, language: str
) -> None:
    class Kernel:
        @staticmethod
        def GetUserDefaultUILanguage() -> int:
            return asked

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(windows, "_kernel", Kernel)
    assert language_of({}) == language
    assert language_of({"SDFT_LANG": "en"}) == "en"


def test_there_is_no_sentence_in_a_language_that_is_not_known() -> None:
    folder = ROOT / "strings"
    names = {path.name.split(".")[-2] for path in folder.glob("*.toml")}
    assert names <= set(LANGUAGES)
