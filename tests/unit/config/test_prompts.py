"""Files of prompts, right and wrong."""

from __future__ import annotations

import json

import pytest

from sdft.config.choices import SAMPLERS
from sdft.config.prompts import (
    DEFAULT_SCALE,
    DEFAULT_STEPS,
    Prompt,
    read_prompts,
)
from sdft.errors import ConfigError


def read(tmp_path, text, name="prompts.txt"):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return read_prompts(tmp_path / name, tmp_path)


def mistakes(tmp_path, text, name="prompts.txt"):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, name)
    return caught.value.problems


def test_every_flag_of_a_text_line_is_read(tmp_path):
    line = "a cat, on grass --n blurry, bad --w 640 --h 384 --d 42 --s 20 --l 5.5 --ss euler_a"
    assert read(tmp_path, line) == (
        Prompt(
            prompt="a cat, on grass",
            negative_prompt="blurry, bad",
            width=640,
            height=384,
            seed=42,
            sample_steps=20,
            scale=5.5,
            sample_sampler="euler_a",
            where="prompts.txt:1",
        ),
    )


def test_what_a_line_does_not_say_is_as_in_sd_scripts(tmp_path):
    (prompt,) = read(tmp_path, "a cat")
    assert (DEFAULT_STEPS, DEFAULT_SCALE, prompt.negative_prompt) == (30, 7.5, "")
    assert (prompt.sample_steps, prompt.scale) == (None, None)
    assert (prompt.width, prompt.height, prompt.seed, prompt.sample_sampler) == (None,) * 4


def test_comments_and_empty_lines_are_passed_over_and_lines_are_counted(tmp_path):
    prompts = read(tmp_path, "# mine\r\n\r\na cat\r\n   \r\na dog --D 7\r\n")
    assert [(p.prompt, p.seed, p.where) for p in prompts] == [
        ("a cat", None, "prompts.txt:3"),
        ("a dog", 7, "prompts.txt:5"),
    ]


@pytest.mark.parametrize("text", ["n the nun", "w 512", "s 30 spoons", "ss euler"])
def test_a_prompt_that_reads_like_a_flag_is_a_prompt(tmp_path, text):
    (prompt,) = read(tmp_path, text)
    assert prompt == Prompt(prompt=text, where="prompts.txt:1")


def test_a_line_of_flags_alone_draws_without_a_prompt(tmp_path):
    (prompt,) = read(tmp_path, "--n blurry --d 3")
    assert (prompt.prompt, prompt.negative_prompt, prompt.seed) == ("", "blurry", 3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_known_whatever_its_case(tmp_path, name):
    (prompt,) = read(tmp_path, f"x --ss {name.upper()}")
    assert prompt.sample_sampler == name


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("x --w 500", "multiple of 8 px and at least 64; 500", "use 496 or 504"),
        ("x --h 32", "at least 64; 32", "use 64 or 72"),
        ("x --w wide", "--w must be a whole number; 'wide'", ""),
        ("x --w 512px", "--w must be a whole number", ""),
        ("x --s 0", "--s must be from 1 to 1000; 0", ""),
        ("x --d -1", "--d must be from 0", ""),
        ("x --l much", "--l must be a number", ""),
        ("x --ss eular_a", 'no sampler "eular_a"', 'did you mean "euler_a"?'),
        ("x --ss unipc_magic_xyz", "no sampler", "known: ddim"),
        ("x --w", "--w has no value", "--w 512"),
        ("x --n", "--n has no value", "--n blurry"),
        ("x --w 512 --w 640", "--w stands twice", "remove one"),
        ("x --no dogs", "no flag --no", "--n"),
        ("x --", "-- without a flag", "known"),
        ("x --cn a.png", "--cn is for another kind of model", "remove it"),
    ],
)
def test_a_broken_flag_is_said_with_its_line(tmp_path, line, what, fix):
    (problem,) = mistakes(tmp_path, f"fine\n{line}\n")
    assert problem.where == "prompts.txt:2"
    assert what in problem.what
    assert fix in problem.fix


def test_all_mistakes_of_a_file_are_said_at_once(tmp_path):
    problems = mistakes(tmp_path, "a --w 500 --h 10\nb --ss nope\nc\n")
    assert [problem.where for problem in problems] == [f"prompts.txt:{n}" for n in (1, 1, 2)]


def test_a_json_list_holds_lines_and_objects(tmp_path):
    content = ["a cat --d 3", {"prompt": "n the nun", "seed": 4, "scale": 6, "sample_steps": 9}]
    first, second = read(tmp_path, json.dumps(content, indent=1), "prompts.json")
    assert (first.prompt, first.seed) == ("a cat", 3)
    assert (second.prompt, second.seed, second.scale, second.sample_steps) == ("n the nun", 4, 6, 9)


def test_json_and_toml_mistakes_name_the_line_of_the_key(tmp_path):
    text = '[\n "a",\n {"prompt": "b",\n  "width": 500,\n  "sed": 3},\n 7\n]'
    found = [(p.where, p.what) for p in mistakes(tmp_path, text, "p.json")]
    assert ("p.json:4", "must be a multiple of 8 px and at least 64; 500 is not") in found
    assert ("p.json:5", 'unknown key "sed"') in found
    assert ("p.json:6", "a prompt is a text or an object") in found
    toml = '[prompt]\nsample_sampler = "eulr"\n[[prompt.subset]]\nprompt = "a"\nseed = true\n'
    found = [(p.where, p.what) for p in mistakes(tmp_path, toml, "p.toml")]
    assert found == [
        ("p.toml:5", "must be a whole number; True is not"),
        ("p.toml:2", 'no sampler "eulr"'),
    ]


def test_a_toml_subset_wins_over_what_all_have_in_common(tmp_path):
    text = (
        '[prompt]\nwidth = 512\nnegative_prompt = "bad"\n[[prompt.subset]]\nprompt = "a"\n'
        'width = 640\n[[prompt.subset]]\nprompt = "b"\n'
    )
    first, second = read(tmp_path, text, "p.toml")
    assert (first.prompt, first.width, first.negative_prompt) == ("a", 640, "bad")
    assert (second.prompt, second.width) == ("b", 512)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("p.txt", "# nothing\n", "there is no prompt"),
        ("p.json", "[]", "there is no prompt"),
        ("p.toml", "", "no table [prompt]"),
        ("p.json", "[1,", "not valid JSON"),
        ("p.toml", "[prompt\n", "not valid TOML"),
        ("p.json", '"text"', "a list of prompts is wanted"),
        ("p.yaml", "a", ".txt, .json or .toml"),
        ("p.toml", '[prompt]\nsubset = "a"\n', "[[prompt.subset]]"),
        ("p.json", '[{"seed": 1}]', "there is no prompt"),
    ],
)
def test_a_file_that_is_none_says_so(tmp_path, name, text, what):
    assert what in "\n".join(
        problem.what + problem.fix for problem in mistakes(tmp_path, text, name)
    )


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_prompts(tmp_path / "none.txt", tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match="not a UTF-8"):
        read_prompts(tmp_path / "bytes.txt", tmp_path)
