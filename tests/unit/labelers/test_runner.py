"""The runner and the sinks, with a model of a few lines: order, batches, memory, stopping."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from sdft.dataset.write_log import WriteLog
from sdft.errors import DataError, EnvironmentFault, UserError
from sdft.events import ItemRejected, SettingChosen, StageFinished, StageProgress, ignore
from sdft.labelers.runner import Task, label_images
from sdft.labelers.sinks import FINISHED, KEPT, TODO, Table, TextFiles


class MeanColour:
    """Says the mean colour of a picture; has room for so many at once."""

    title = "mean colour"

    def __init__(self, room=100, fixed_batch=None, first_batch=4, error=MemoryError):
        self.room, self.fixed_batch, self.first_batch = room, fixed_batch, first_batch
        self.error = error
        self.batches = []
        self.threads = set()

    def prepare(self, rgb_HWC):
        self.threads.add(threading.current_thread().name)
        return rgb_HWC

    def label(self, batch):
        if len(batch) > self.room:
            raise self.error("CUDA out of memory")
        self.batches.append(len(batch))
        return [(str(int(image.pixels[0, 0, 0])), image.key) for image in batch]


@pytest.fixture
def tasks(tmp_path):
    made = []
    for number in range(11):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        made.append(Task(path=path, key=path.name))
    return made


def run(tasks, labeler, **options):
    said = {}
    lock = threading.Lock()

    def write(task, words):
        with lock:
            said[task.key] = words

    options = {"emit": ignore, "stage": "test"} | options
    return label_images(tasks, labeler, write=write, **options), said


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_image_is_labelled_and_written_once(tasks, num_workers):
    labeler = MeanColour()
    result, said = run(tasks, labeler, num_workers=num_workers)
    assert said == {f"{n}.png": (str(n), f"{n}.png") for n in range(11)}
    assert labeler.batches == [4, 4, 3]
    assert (result.num_done, result.stopped, result.rejected) == (11, None, ())
    assert all(name.startswith("decode") for name in labeler.threads)


def test_a_batch_size_that_is_asked_for_is_used(tasks):
    labeler = MeanColour()
    run(tasks, labeler, batch_size=6)
    assert labeler.batches == [6, 5]


def test_a_fixed_batch_of_the_model_wins_and_is_said(tasks):
    events = []
    labeler = MeanColour(fixed_batch=2)
    run(tasks, labeler, batch_size=6, emit=events.append)
    assert labeler.batches == [2] * 5 + [1]
    (chosen,) = [event for event in events if isinstance(event, SettingChosen)]
    assert (chosen.name, chosen.value) == ("batch_size", 2)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_the_batch_is_halved_until_it_fits_and_this_is_said(tasks, error):
    events = []
    labeler = MeanColour(room=3, first_batch=16, error=error)
    result, said = run(tasks, labeler, emit=events.append)
    assert len(said) == 11
    assert max(labeler.batches) <= 3
    assert result.batch_size == 2
    chosen = [event.value for event in events if isinstance(event, SettingChosen)]
    assert chosen == [5, 2]


def test_too_little_memory_for_one_image_is_an_error_with_words(tasks):
    with pytest.raises(EnvironmentFault, match="not enough memory for 1 image"):
        run(tasks, MeanColour(room=0))


def test_an_error_that_is_not_about_memory_is_not_swallowed(tasks):
    class Broken(MeanColour):
        def label(self, batch):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run(tasks, Broken())


def test_images_that_cannot_be_read_are_named_and_the_others_go_on(tasks, tmp_path):
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    (tmp_path / "5.png").write_text("no picture")
    (tmp_path / "7.png").unlink()
    events = []
    result, said = run(tasks, MeanColour(), emit=events.append)
    assert len(said) == 8
    assert [path.name for path, _ in result.rejected] == ["3.png", "5.png", "7.png"]
    assert all(reason for _, reason in result.rejected)
    assert len([event for event in events if isinstance(event, ItemRejected)]) == 3
    progress = [event.done for event in events if isinstance(event, StageProgress)]
    assert progress[-1] == 11
    (finished,) = [event for event in events if isinstance(event, StageFinished)]
    assert finished.done == 8


def test_a_stop_writes_what_is_begun(tasks):
    asked = iter([None, "interrupted"])
    result, said = run(tasks, MeanColour(), stop=lambda: next(asked))
    assert result.stopped == "interrupted"
    assert len(said) == result.num_done == 8


def test_what_writing_raises_ends_the_run(tasks):
    def write(task, words):
        raise EnvironmentFault(what="disk full")

    with pytest.raises(EnvironmentFault, match="disk full"):
        label_images(tasks, MeanColour(), write=write, stage="test", emit=ignore)


# Sinks


def text_files(settings="a", **options):
    log = WriteLog(line="sdft tag", settings=settings)
    return TextFiles(log=log, extension=".txt", separator=", ", **options)


def test_a_person_s_words_are_kept_and_ours_are_finished(tasks, tmp_path):
    text_files().write(tasks[0], ("1girl", "smile"))
    (tmp_path / "1.txt").write_text("by hand\n")
    assert (tmp_path / "0.txt").read_bytes() == b"1girl, smile\n"
    states = [text_files().state(task) for task in tasks[:3]]
    assert states == [FINISHED, KEPT, TODO]
    assert text_files("b").state(tasks[0]) == TODO
    assert text_files(overwrite=True).state(tasks[1]) == TODO
    assert text_files(overwrite=True).state(tasks[0]) == FINISHED
    Image.new("RGB", (9, 9)).save(tasks[0].path)
    assert text_files().state(tasks[0]) == TODO


def test_words_that_a_person_writes_during_the_run_are_kept(tasks, tmp_path):
    sink = text_files()
    assert sink.state(tasks[0]) == TODO
    (tmp_path / "0.txt").write_text("by hand\n")
    sink.write(tasks[0], ("1girl",))
    assert (tmp_path / "0.txt").read_text() == "by hand\n"


def test_appending_keeps_the_file_s_tags_and_happens_once(tasks, tmp_path):
    (tmp_path / "0.txt").write_text("by hand, smile\n")
    sink = text_files(append=True)
    assert sink.state(tasks[0]) == TODO
    sink.write(tasks[0], ("smile", "1girl"))
    assert (tmp_path / "0.txt").read_text() == "by hand, smile, 1girl\n"
    assert text_files(append=True).state(tasks[0]) == FINISHED
    assert text_files("b").state(tasks[0]) == KEPT
    assert sink.words_of(tasks[0]) == ("by hand", "smile", "1girl")


def test_words_that_cannot_be_read_are_not_appended_to(tasks, tmp_path):
    content = "\u9577\u3044\u9aea\u306e\u5c11\u5973".encode("shift_jis")
    (tmp_path / "0.txt").write_bytes(content)
    with pytest.raises(DataError, match="Shift-JIS"):
        text_files(append=True).state(tasks[0])
    assert (tmp_path / "0.txt").read_bytes() == content


def table(path, settings="a", **options):
    log = WriteLog(line="sdft tag", settings=settings)
    return Table(log=log, path=path, separator=", ", **options)


def test_a_table_has_sd_scripts_form_and_goes_on_where_it_stopped(tasks, tmp_path):
    path = tmp_path / "tags.json"
    first = table(path)
    first.write(tasks[1], ("\u9aea", "b"))
    notes = tmp_path / ".sdft" / "tags.json.notes.jsonl"
    with notes.open("ab") as file:
        file.write(b'{"settings": "a", "ima')
    second = table(path)
    assert [second.state(task) for task in tasks[:2]] == [TODO, FINISHED]
    second.write(tasks[0], ("a",))
    second.finish()
    assert path.read_text(encoding="utf-8").startswith('{\n    "')
    assert "\u9aea" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_bytes()) == {
        tasks[0].path.as_posix(): {"tags": "a", "image_size": [8, 8]},
        tasks[1].path.as_posix(): {"tags": "\u9aea, b", "image_size": [8, 8]},
    }
    assert table(path, "b").state(tasks[0]) == TODO


def test_a_table_of_lines_puts_tags_under_caption(tasks, tmp_path):
    path = tmp_path / "tags.jsonl"
    sink = table(path)
    sink.state(tasks[0])
    sink.write(tasks[0], ("a", "b"))
    sink.finish()
    assert json.loads(path.read_bytes()) == {
        "image_path": tasks[0].path.as_posix(),
        "caption": "a, b",
        "image_size": [8, 8],
    }


def test_a_table_that_a_person_made_is_not_replaced(tasks, tmp_path):
    path = tmp_path / "tags.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="was not made by sdft"):
        table(path)
    assert table(path, overwrite=True).state(tasks[0]) == TODO
    with pytest.raises(UserError, match=r"\.json or a \.jsonl"):
        table(tmp_path / "tags.csv")


def test_the_same_picture_in_any_batch_is_the_same_pixels(tasks):
    labeler = MeanColour(first_batch=3)
    whole, said = run(tasks, labeler)
    single, said_singly = run(tasks, MeanColour(first_batch=1), num_workers=2)
    assert said == said_singly
    assert whole.num_done == single.num_done
    assert np.array_equal(labeler.batches, [3, 3, 3, 2])
