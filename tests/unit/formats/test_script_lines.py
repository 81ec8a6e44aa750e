"""The words of a command line in the three kinds of scripts that people keep."""

import pytest

from sdft.formats.script_lines import BAT, PS1, SH, read_commands


def words(text, kind):
    (command,) = read_commands(text, kind)
    return list(command.words)


BATCH = """\
@echo off
rem my settings
set MODEL=D:\\models\\v1-5 pruned.safetensors
set "OUT=D:\\out"
SET STEPS=100
accelerate launch --num_cpu_threads_per_process 1 fine_tune.py ^
  --pretrained_model_name_or_path="%model%" ^
  --output_dir %OUT% ^
:: --xformers ^
  --max_train_steps=%STEPS% --caption_prefix "a \\"b\\"" --x a^&b
pause
"""


def test_a_batch_file_with_carets_quotes_and_variables():
    echo, train, pause = read_commands(BATCH, BAT)
    assert echo.words == ("echo", "off")
    assert pause.words == ("pause",)
    assert train.line == 6
    assert train.words == (
        "accelerate",
        "launch",
        "--num_cpu_threads_per_process",
        "1",
        "fine_tune.py",
        "--pretrained_model_name_or_path=D:\\models\\v1-5 pruned.safetensors",
        "--output_dir",
        "D:\\out",
        "--max_train_steps=100",
        "--caption_prefix",
        'a "b"',
        "--x",
        "a&b",
    )


def test_a_folder_that_ends_in_a_backslash_keeps_it_in_a_batch_file():
    assert words('x --output_dir "D:\\out\\"', BAT)[-1] == "D:\\out\\"


POWERSHELL = """\
# settings
$model = "D:/models/v1-5.safetensors" # where it is
$Env:NAME = 'my "cat"'
$rates = @("a=1", 'b=2')
accelerate launch fine_tune.py `
  --pretrained_model_name_or_path=$model `
  --output_name "$env:name-1" `
  --literal '$model' `
  --optimizer_args $rates
"""


def test_a_powershell_script_with_backticks_and_lists():
    assert words(POWERSHELL, PS1)[3:] == [
        "--pretrained_model_name_or_path=D:/models/v1-5.safetensors",
        "--output_name",
        'my "cat"-1',
        "--literal",
        "$model",
        "--optimizer_args",
        "a=1",
        "b=2",
    ]


SHELL = """\
#!/bin/bash
MODEL="/data/my models/v1-5.safetensors"
export OUT=/out
args=(--xformers
  --seed=1)
accelerate launch fine_tune.py \\
  --pretrained_model_name_or_path="$MODEL" --output_dir ${OUT}/a \\
  # --v2 \\
  --caption_prefix 'a $MODEL' "${args[@]}"   # the end
"""


def test_a_shell_script_with_backslashes_and_arrays():
    assert words(SHELL, SH)[3:] == [
        "--pretrained_model_name_or_path=/data/my models/v1-5.safetensors",
        "--output_dir",
        "/out/a",
        "--caption_prefix",
        "a $MODEL",
        "--xformers",
        "--seed=1",
    ]


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [("x --a %HOME%", BAT, "%HOME%"), ("x --a $b", PS1, "$b"), ("x --a ${B}/c", SH, "${B}")],
)
def test_a_variable_that_the_file_does_not_set_is_named_and_left(text, kind, name):
    (command,) = read_commands(text, kind)
    assert command.unknown == (name,)
    assert name in command.words[-1]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing():
    plain = read_commands(BATCH, BAT)
    assert read_commands("\ufeff" + BATCH.replace("\n", "\r\n"), BAT) == plain


def test_a_file_that_ends_in_a_continuation_is_read_to_its_end():
    assert words("x --a 1 ^\n  --b ^", BAT) == ["x", "--a", "1", "--b"]
