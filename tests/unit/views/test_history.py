"""A run's events are read whole, quickly, and whatever the file holds."""

from __future__ import annotations

import dataclasses
import json
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdft.events import EventLine, RunStarted, StepDone
from sdft.views.history import STEP_CURVES, History, RunReader
from sdft.views.summary import Summary, reduce
from tests.slowness import slowness
from tests.tui.recorder import Recorder, example_run


def read_whole(path: Path) -> RunReader:
    reader = RunReader(path)
    while reader.advance():
        pass
    return reader


def long_file(path: Path, num_steps: int) -> Path:
    """Write a run of many steps quickly."""
    recorder = Recorder(path.parent, steps=num_steps)
    recorder.begin()
    step = StepDone(
        step=1, epoch=1, loss=0.125, lr=1e-6, bucket=(512, 512), grad_norm=0.5, items=4,
        duration_s=0.5, memory_bytes=9_000_000_000,
    )  # fmt: skip
    head, tail = EventLine.write(step, 1.0).split('"step": 1,')
    lines = (f'{head}"step": {number},{tail}\n' for number in range(1, num_steps + 1))
    with recorder.run.events_file.open("a") as file:
        file.writelines(lines)
    return recorder.run.events_file


def test_the_fast_way_gives_the_same_numbers_as_event_by_event(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    expected = Summary()
    for line in recorder.run.events_file.read_text().splitlines():
        found = EventLine.read(line)
        assert found is not None
        expected = reduce(expected, *found)
    snapshot = read_whole(recorder.run.events_file).snapshot()
    assert snapshot.summary == expected
    assert snapshot.num_events == len(recorder.run.events_file.read_text().splitlines())


def test_every_curve_has_every_step(tmp_path: Path) -> None:
    snapshot = read_whole(example_run(tmp_path / "cats.run").run.events_file).snapshot()
    for name in STEP_CURVES:
        assert [point.step for point in snapshot.curves[name].points()] == list(range(1, 231)), name
    for name in ("validation", "validation_low", "validation_high", "epoch_loss"):
        assert [point.step for point in snapshot.curves[name].points()] == [50, 100, 150, 200], name
    assert [sample.step for sample in snapshot.samples] == [100, 100, 230, 230]


def test_a_step_in_another_spelling_counts_too(tmp_path: Path) -> None:
    path = example_run(tmp_path / "cats.run", steps_done=100).run.events_file
    step = json.loads(path.read_text().splitlines()[-5])
    lines = path.read_text().splitlines()
    last = next(line for line in reversed(lines) if "StepDone" in line)
    step = json.loads(last) | {"step": 101, "news": [1, 2]}
    with path.open("a") as file:
        file.write(json.dumps(step, separators=(",", ":"), sort_keys=True) + "\n")
    snapshot = read_whole(path).snapshot()
    assert snapshot.summary.step == 101
    assert snapshot.curves["loss"].num_values == 101


def test_a_long_run_is_shown_at_once_and_then_read_whole(tmp_path: Path) -> None:
    path = long_file(tmp_path / "events.jsonl", 200_000)
    tracemalloc.start()
    begun_s = time.process_time()
    reader = RunReader(path)
    first = reader.snapshot()
    shown_after_s = time.process_time() - begun_s
    assert reader.is_behind
    assert first.summary.step == 200_000
    assert first.summary.run is not None
    assert len(first.curves["loss"]) > 500
    assert first.share_read < 1
    while reader.is_behind:
        reader.advance()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = reader.snapshot()
    assert whole.share_read == 1
    assert whole.curves["loss"].num_values == 200_000
    assert whole.summary.images_seen == 800_000
    assert shown_after_s < 2 * slowness()
    assert peak_bytes < 30_000_000


def test_what_is_written_while_older_events_are_read_is_shown(tmp_path: Path) -> None:
    path = long_file(tmp_path / "events.jsonl", 30_000)
    reader = RunReader(path)
    assert reader.is_behind
    with path.open("a") as file:
        last = path.read_text().splitlines()[-1]
        file.write(last.replace('"step": 30000', '"step": 30001') + "\n")
    reader.advance(num_slices=1)
    assert reader.is_behind
    assert reader.snapshot().summary.step == 30_001


def test_a_line_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    path = recorder.run.events_file
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    reader = read_whole(path)
    before = reader.snapshot().num_events
    path.write_bytes(whole)
    assert reader.advance()
    assert reader.snapshot().num_events == before + 1


@pytest.mark.parametrize("keep", [0, 1000, 30_000])
def test_a_file_cut_by_a_resumed_run_is_read_anew(tmp_path: Path, keep: int) -> None:
    recorder = example_run(tmp_path / "cats.run")
    path = recorder.run.events_file
    reader = read_whole(path)
    whole = path.read_bytes()
    cut = whole[: whole.rfind(b"\n", 0, keep) + 1]
    again = whole.replace(b'"epoch": 1,', b'"epoch": 7,')[len(cut) :] * 2
    path.write_bytes(cut + again)  # longer than before, and different where it was read
    while reader.advance():
        pass
    assert reader.snapshot().num_events == len((cut + again).splitlines())


def test_steps_done_again_after_a_resume_replace_the_former_ones(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.step = 150
    recorder.begin(first_step=151)
    recorder.do_steps(5)
    snapshot = read_whole(recorder.run.events_file).snapshot()
    assert [point.step for point in snapshot.curves["loss"].points()] == list(range(1, 156))
    assert [point.step for point in snapshot.curves["validation"].points()] == [50, 100, 150]
    assert {sample.step for sample in snapshot.samples} == {100}


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    reader = RunReader(tmp_path / "none.jsonl")
    assert not reader.advance()
    assert reader.snapshot().summary == Summary()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def hostile_lines() -> st.SearchStrategy[bytes]:
    """Lines that look like events, with any value in any field."""
    per_kind = [
        st.fixed_dictionaries(
            {"event": st.just(name), "time": st.just(1.0) | json_values},
            optional={field.name: json_values | numbers for field in dataclasses.fields(kind)},
        )
        for name, kind in EventLine.kinds.items()
    ]
    records = st.one_of(per_kind).map(lambda record: json.dumps(record).encode())
    step = EventLine.write(
        StepDone(step=1, epoch=1, loss=1.0, lr=1.0, bucket=(1, 1), grad_norm=1.0, items=1,
                 duration_s=1.0),
        1.0,
    )  # fmt: skip
    mutated = st.tuples(st.integers(0, len(step)), st.text("-+.eE0123456789,x", max_size=4)).map(
        lambda pair: (step[: pair[0]] + pair[1] + step[pair[0] :]).encode()
    )
    return st.binary(max_size=60) | records | mutated


numbers = st.sampled_from([0, -1, 10**400, 1e308, -1e308, 1e999, float("nan"), 2**63, 1e-320])


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(hostile_lines(), max_size=12))
def test_no_file_of_events_breaks_the_reader_or_what_is_drawn_from_it(lines: list[bytes]) -> None:
    from sdft.language import Words
    from sdft.rundir import RunDir
    from sdft.tui import rows
    from sdft.tui.figure import draw
    from sdft.tui.following import Seen
    from sdft.tui.viewing import CHARTS, Colors, Viewing, chart_plan
    from sdft.views.run_state import Facts, run_state

    history = History()
    history.take(b"\n".join(lines) + b"\n")
    for line in lines:
        history.glimpse(line + b"\n")
    snapshot = history.snapshot(1.0)
    facts = Facts(exists=True, status=None, pid=1, alive=True)
    seen = Seen(
        run=RunDir(Path("x.run")), snapshot=snapshot, facts=facts,
        state=run_state(snapshot.summary, facts), quiet_s=1.0, gpu=None,
    )  # fmt: skip
    words = Words("en")
    rows.title_row(seen, words)
    rows.progress_row(seen, words)
    rows.table(rows.figure_rows(seen, words), 30)
    rows.notice_rows(seen, words, 3)
    rows.fates_rows(None, seen, words, 60)
    colors = Colors(runs=[(1, 2, 3), (4, 5, 6)], background=(0, 0, 0))
    for name in CHARTS:
        for log_scale in (False, True):
            plan = chart_plan(
                name, [seen], Viewing(log_scale=log_scale),
                words=words, colors=colors, ascii_only=True,
            )  # fmt: skip
            draw(plan, 20, 6)


def test_an_event_with_values_of_other_types_is_not_understood() -> None:
    good = EventLine.write(
        RunStarted(name="a", steps=1, epochs=1, first_step=1, images=1, effective_batch=1,
                   device="cpu", model="m", command="c", version="v"),
        1.0,
    )  # fmt: skip
    assert EventLine.read(good) is not None
    for field, value in (("steps", None), ("steps", "3"), ("name", 3), ("epochs", [1])):
        assert EventLine.read(json.dumps(json.loads(good) | {field: value})) is None
    assert EventLine.read(json.dumps(json.loads(good) | {"event": ["RunStarted"]})) is None
    assert EventLine.read("[" * 100_000) is None
