"""Saves go on beside the training, in order, and their errors are heard."""

import threading

import pytest

from sdft.errors import EnvironmentFault
from sdft.events import Notice, ignore
from sdft.train.background import SPARE_BYTES, BackgroundWriter, SaveJob


def job(name, diary, *, num_bytes=8, until=None, fails=False):
    def write(content):
        if until is not None:
            assert until.wait(120)
        if fails:
            raise EnvironmentFault(what="the disk is full")
        diary.append(f"write {name} {content}")

    def copied(live):
        diary.append(f"copy {name}")
        return list(live)

    return SaveJob(name=name, content=[1], num_bytes=num_bytes, copied=copied, write=write)


def test_all_copies_come_before_the_first_file():
    diary = []
    writer = BackgroundWriter(emit=ignore)
    writer.submit([job("a", diary), job("b", diary)])
    writer.wait()
    assert diary == ["copy a", "copy b", "write a [1]", "write b [1]"]


def test_the_loop_waits_for_copies_and_not_for_files():
    diary = []
    go_on = threading.Event()
    writer = BackgroundWriter(emit=ignore)
    writer.submit([job("a", diary, until=go_on)])
    writer.wait_for_copies()
    assert diary == ["copy a"]
    go_on.set()
    writer.wait()
    assert diary[-1] == "write a [1]"


def test_a_second_save_waits_for_the_first():
    diary = []
    go_on = threading.Event()
    writer = BackgroundWriter(emit=ignore)
    writer.submit([job("a", diary, until=go_on)])
    threading.Timer(0.05, go_on.set).start()
    writer.submit([job("b", diary)])
    writer.wait()
    assert diary == ["copy a", "write a [1]", "copy b", "write b [1]"]


@pytest.mark.parametrize("method", ["wait", "wait_for_copies"])
def test_what_goes_wrong_in_the_thread_is_raised_once_where_the_loop_asks(method):
    diary = []
    writer = BackgroundWriter(emit=ignore)
    writer.submit([job("a", diary, fails=True), job("b", diary)])
    writer._thread.join()
    with pytest.raises(EnvironmentFault, match="full"):
        getattr(writer, method)()
    writer.wait()
    assert "write b [1]" not in diary


def test_without_memory_for_copies_the_loop_waits_and_it_is_said_once():
    diary, events = [], []
    writer = BackgroundWriter(emit=events.append, available_bytes=lambda: SPARE_BYTES)
    writer.submit([job("a", diary)])
    assert diary == ["write a [1]"]
    writer.submit([job("b", diary)])
    assert diary == ["write a [1]", "write b [1]"]
    (notice,) = [one for one in events if isinstance(one, Notice)]
    assert "training waits" in notice.message
    # What is a copy already takes no more memory.
    writer.submit([job("c", diary, num_bytes=0)])
    writer.wait()
    assert diary[-2:] == ["copy c", "write c [1]"]
