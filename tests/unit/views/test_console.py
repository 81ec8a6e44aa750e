from __future__ import annotations

import io
from typing import get_args, get_type_hints

import pytest

from sdft.events import (
    Event,
    EventLine,
    ItemRejected,
    Notice,
    RunStarted,
    RunStopped,
    StageFinished,
    StageProgress,
    StageStarted,
    StepDone,
)
from sdft.views.console import NUM_REJECTED_SHOWN, PLAIN_EVERY_S, PlainView, console_view
from sdft.views.lines import line_of
from sdft.views.text import visible

NAUGHTY = "a[red]b[/] [/nothing] \U0001f600 \u3042 \\ [bold"
"""What rich would take for markup, or choke on."""


def step(number: int) -> StepDone:
    return StepDone(
        step=number,
        epoch=1,
        loss=0.25,
        lr=1e-5,
        bucket=(64, 64),
        grad_norm=None,
        items=2,
        duration_s=1.0,
    )


RUN = RunStarted(
    name="cats",
    steps=100,
    epochs=2,
    first_step=1,
    images=8,
    effective_batch=2,
    device="cpu",
    model="m",
    command="c",
    version="0",
)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def plain(*events: Event, each_s: float) -> list[str]:
    lines: list[str] = []
    now_s = [0.0]
    view = PlainView(lines.append, clock=lambda: now_s[0])
    for event in events:
        view(1000.0 + now_s[0], event)
        now_s[0] += each_s
    view.close()
    return lines


def test_steps_in_a_pipe_come_at_a_modest_rate_and_the_first_at_once():
    lines = plain(RUN, *(step(number) for number in range(1, 41)), each_s=1.0)
    shown = [line for line in lines if line.startswith("step ")]
    assert shown[0].startswith("step 1 of 100, epoch 1: loss 0.2500, lr 1e-05, 2 images/s")
    assert len(shown) == 1 + int(40 // PLAIN_EVERY_S)


def test_progress_of_a_stage_in_a_pipe_comes_at_a_modest_rate():
    events = [StageProgress(stage="latents", done=done) for done in range(1, 31)]
    begin = StageStarted(stage="latents", total=30, unit="images")
    end = StageFinished(stage="latents", done=30, duration_s=30.0)
    lines = plain(begin, *events, end, each_s=1.0)
    assert lines[0] == "latents: 30 images ..."
    assert lines[-1] == "latents: done, 30 in 30.0s"
    assert lines[1] == "latents: 10 of 30 images, 1 images/s, 20.0s left"
    assert len(lines) == 2 + 3


def test_rejected_images_are_listed_up_to_a_number_and_then_counted():
    events = [ItemRejected(path=f"{n}.png", reason="truncated") for n in range(50)]
    lines = plain(*events, each_s=0.0)
    assert lines[0] == "not used: 0.png: truncated"
    assert len(lines) == NUM_REJECTED_SHOWN + 1
    assert lines[-1] == f"not used: {50 - NUM_REJECTED_SHOWN} more images"


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    stream = io.StringIO()
    with console_view(stream=stream) as view:
        view(0.0, Notice(severity="warning", topic="t", message=NAUGHTY))
    assert stream.getvalue() == f"warning: {NAUGHTY}\n"


def test_quiet_shows_nothing():
    stream = io.StringIO()
    with console_view(stream=stream, quiet=True) as view:
        view(0.0, Notice(severity="error", topic="t", message="x"))
    assert stream.getvalue() == ""


def test_a_reader_that_goes_away_does_not_end_the_run():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with console_view(stream=Gone()) as view:
        view(0.0, Notice(severity="info", topic="t", message="x"))


def test_text_from_files_is_shown_on_a_terminal_as_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with console_view(stream=stream) as view:
        view(0.0, RUN)
        view(0.0, StageStarted(stage=NAUGHTY, total=2, unit="images"))
        view(0.0, StageProgress(stage=NAUGHTY, done=1))
        view(0.0, ItemRejected(path=NAUGHTY, reason=NAUGHTY))
        view(0.0, StageFinished(stage=NAUGHTY, done=2, duration_s=1.0))
        view(0.0, step(1))
        view(0.0, StageProgress(stage="unknown", done=1))
        view(0.0, RunStopped(step=1, reason=NAUGHTY, resumable=True, fix="sdft train"))
    assert f"not used: {NAUGHTY}: {NAUGHTY}" in stream.getvalue()
    assert f"{NAUGHTY}: done" in stream.getvalue()


def test_a_terminal_lists_rejected_images_up_to_a_number(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with console_view(stream=stream) as view:
        for number in range(NUM_REJECTED_SHOWN + 5):
            view(0.0, ItemRejected(path=f"{number}.png", reason="truncated"))
    assert stream.getvalue().count("truncated") == NUM_REJECTED_SHOWN
    assert "not used: 5 more images" in stream.getvalue()


SAMPLES: dict[type, object] = {str: "x", int: 2, float: 0.5, bool: True}
"""A value for each type that a field of an event may have."""


def example(kind: type[Event]) -> Event:
    values = {}
    for name, hint in get_type_hints(kind).items():
        if name in kind.__dataclass_fields__:
            kinds = [t for t in (hint, *get_args(hint)) if t in SAMPLES]
            if name == "arguments":
                values[name] = {"every": 5}
                continue
            values[name] = (64, 64) if name == "bucket" else SAMPLES[kinds[0]] if kinds else "x"
    return kind(**values)


@pytest.mark.parametrize("kind", EventLine.kinds.values(), ids=EventLine.kinds)
def test_every_event_but_progress_has_a_sentence(kind):
    event = example(kind)
    assert EventLine.read(EventLine.write(event, 0.0)) == (0.0, event)
    assert (line_of(event) is None) == (kind is StageProgress)


def test_control_characters_are_shown_by_their_number():
    assert visible("a\x1b[31m\r\x00\x9b\u202eb\tc\n") == ("a\\x1b[31m\\r\\x00\\x9b\\u202eb\tc\n")
    assert visible("\udce9\u3042\U0001f600") == "\\udce9\u3042\U0001f600"
