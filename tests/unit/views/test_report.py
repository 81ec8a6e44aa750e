"""The report of a run: one page that shows everything and asks nobody for anything."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from sdft.cli.app import run as run_command
from sdft.events import EventLine, StepDone
from sdft.rundir import RunDir
from sdft.views.report.charts import NUM_POINTS, charts_of
from sdft.views.report.page import report_html
from sdft.views.report.pictures import MAX_COLUMNS, picture_table
from sdft.views.run_diff import diff_runs
from sdft.views.run_list import list_runs
from sdft.views.run_record import read_run
from tests.browser import browser
from tests.unit.views.run_folder import PROMPTS, make_run


def without_anna(text):
    return text.replace("/home/anna", "~")


@pytest.fixture
def page(tmp_path):
    run = make_run(tmp_path)
    file = tmp_path / "report.html"
    file.write_text(report_html(read_run(run), clean=without_anna), "utf-8")
    return file


def test_a_browser_shows_curves_and_pictures_without_an_error_or_a_request(page):
    with browser() as chromium:
        chromium.open(page)
        assert chromium.run("document.documentElement.dataset.ready") == "yes"
        assert chromium.run("document.querySelectorAll('.chart').length") == 6
        titles = chromium.run("[...document.querySelectorAll('.chart h3')].map(h => h.innerText)")
        assert titles[:2] == ["Loss", "Loss at fixed timesteps and noise"]
        # Each curve has points, and they spread over its chart.
        curves = "[...document.querySelectorAll('.curve')].map(c => c.getBBox())"
        sizes = chromium.run(f"{curves}.map(b => b.width)")
        assert len(sizes) == 9
        assert min(sizes) > 300
        heights = chromium.run(f"{curves}.slice(0, 2).map(b => b.height)")
        assert min(heights) > 50
        shown = "[...document.querySelectorAll('.pictures img')].map(i => i.naturalWidth)"
        assert chromium.run(shown) == [256] * 10
        assert chromium.errors == []
        assert {url.partition(":")[0] for url in chromium.requests} == {"file", "data"}
        assert sum(url.startswith("file:") for url in chromium.requests) == 1


def test_the_pointer_shows_the_values_under_it(page, tmp_path):
    with browser() as chromium:
        chromium.open(page)
        find = "(() => { const r = document.querySelector('#charts svg').getBoundingClientRect();"
        left, top, width, height = chromium.run(
            f"{find} return [r.left, r.top, r.width, r.height]; }})()"
        )
        chromium.point_at(left + width / 2, top + height / 2)
        words = chromium.run("document.querySelector('.tip').innerText").splitlines()
        step = int(words[0].removeprefix("step "))
        assert 110 < step < 125
        assert re.fullmatch(r"each step: 0\.\d+", words[1])
        chromium.run("document.querySelector('.pictures img').click()")
        assert chromium.run("document.querySelectorAll('#large img').length") == 1
        chromium.picture(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_text_from_files_is_never_markup(page):
    text = page.read_text("utf-8")
    assert "<b>blue</b>" not in text
    assert "a &lt;b&gt;blue&lt;/b&gt; square &amp; &quot;more&quot;" in text
    assert "&lt;i&gt;.png" in text


def test_the_page_needs_nothing_from_outside_and_names_no_home(page):
    text = page.read_text("utf-8")
    assert "default-src 'none'" in text
    assert re.findall(r"(?:src|href)=[\"'](?!data:)", text) == []
    assert "anna" not in text
    assert "~/pictures" in text


def test_a_folder_with_next_to_nothing_still_gives_a_page(tmp_path):
    run = RunDir(tmp_path / "empty.run")
    run.path.mkdir()
    (run.events_file).write_bytes(b"not json\n\xff\xfe\n")
    run.config_file.write_text("broken = [", "utf-8")
    html = report_html(read_run(run), clean=str)
    for words in ("no step was done", "none were drawn", "holds no settings", "does not say"):
        assert words in html


def test_a_long_run_is_thinned_and_keeps_its_spike(tmp_path):
    run = RunDir(tmp_path / "long.run")
    run.path.mkdir()
    lines = [
        EventLine.write(
            StepDone(
                step=step,
                epoch=1,
                loss=9.0 if step == 7001 else 0.1,
                lr=1e-5,
                bucket=(512, 512),
                grad_norm=None,
                items=1,
                duration_s=0.1,
            ),
            0.0,
        )
        for step in range(1, 20_001)
    ]
    run.events_file.write_text("\n".join(lines) + "\n", "ascii")
    loss, *_ = charts_of(read_run(run).snapshot)
    points = loss["series"][0]["points"]
    assert len(points) <= NUM_POINTS
    assert max(point[3] for point in points) == 9.0


def test_of_many_samples_a_spread_of_steps_is_shown(tmp_path):
    run = make_run(tmp_path, num_steps=60 * 40)
    table = picture_table(read_run(run))
    assert len(table.steps) == MAX_COLUMNS
    assert (table.steps[0], table.steps[-1]) == (0, 2400)
    assert table.num_left_out == 2 * (41 - MAX_COLUMNS)
    assert [row.prompt for row in table.rows] == list(PROMPTS)


def test_a_sample_outside_of_the_run_folder_is_not_read(tmp_path):
    run = make_run(tmp_path, num_steps=60)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    text = run.events_file.read_text("ascii")
    run.events_file.write_text(text.replace("/samples/cats_000060_00_1.png", "/../../secret.png"))
    rows = picture_table(read_run(run)).rows
    assert [cell is None for cell in rows[0].cells] == [False, True]


def test_the_command_writes_the_page_into_the_run_folder(tmp_path, capsys):
    run = make_run(tmp_path)
    assert run_command(["report", str(tmp_path / "cats"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == str(run.path / "report.html")
    assert (result["state"], result["steps"]) == ("finished", 240)
    assert (run.path / "report.html").stat().st_size > 20_000


def test_runs_are_listed_with_state_and_figures(tmp_path, capsys):
    make_run(tmp_path / "a", "cats")
    make_run(tmp_path / "b", "dogs", num_steps=120)
    rows = {row.name: row for row in list_runs(tmp_path)}
    assert (rows["cats"].state, rows["cats"].step, rows["cats"].steps) == ("finished", 240, 240)
    assert rows["dogs"].validation == pytest.approx(0.24)
    assert run_command(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "state", "step"]
    assert any(line.startswith("dogs") and "120 of 120" in line for line in lines[1:])
    assert run_command(["runs", str(tmp_path / "none")]) == 2


def test_the_difference_of_two_runs_names_settings_images_and_the_step_where_they_part(tmp_path):
    first = make_run(tmp_path / "a")
    second = make_run(tmp_path / "b", lr=2e-5)
    moved = second.fates_file.read_text().replace("/home/anna/pictures", "D:/other")
    second.fates_file.write_text(moved.replace("000.png", "new.png"))
    diff = diff_runs(read_run(first), read_run(second))
    assert [(d.name, d.first, d.second) for d in diff.settings] == [
        ("learning_rate", "1e-05", "2e-05")
    ]
    assert {d.name for d in diff.data} == {"000.png", "new.png"}
    assert diff.environment == ()
    assert diff.first_loss_apart is None
    third = make_run(tmp_path / "c")
    text = third.events_file.read_text().splitlines()
    changed = [
        line.replace('"loss": 0.', '"loss": 1.') if '"step": 5,' in line else line for line in text
    ]
    third.events_file.write_text("\n".join(changed) + "\n")
    assert diff_runs(read_run(first), read_run(third)).first_loss_apart == 5
    same = diff_runs(read_run(first), read_run(first))
    assert (same.settings, same.num_images_different, same.environment) == ((), 0, ())


def test_the_diff_command_says_what_is_the_same_too(tmp_path, capsys):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", lr=2e-5)
    assert run_command(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "learning_rate  1e-05  2e-05" in out
    assert "environment: no difference" in out
