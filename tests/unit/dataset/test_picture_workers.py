"""Processes that read pictures: light, the same as reading here, gone when the run is."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import sdft
from sdft.dataset.augment import draw_picture
from sdft.dataset.picture_workers import PictureWorkers
from sdft.errors import EnvironmentFault
from tests.unit.dataset.pictures import picture
from tests.unit.dataset.test_augment import address, job_for


@pytest.fixture
def job(tmp_path):
    path = picture(tmp_path / "a.png", (90, 60))
    return job_for(path, color_aug=True, random_crop=True, flip_aug=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pictures_are_the_same_wherever_they_are_drawn(job, num_workers):
    workers = PictureWorkers(num_workers)
    try:
        results = [workers.begin(job, address(repeat=n)) for n in range(12)]
        for number, result in enumerate(results):
            here = draw_picture(job, address(repeat=number)).rgb_HWC
            assert np.array_equal(result().rgb_HWC, here)
    finally:
        workers.close()


def draw_until_noticed(workers, job):
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        workers.begin(job, address())()
        time.sleep(0.05)


def test_a_worker_that_is_killed_ends_the_run_in_words(job):
    workers = PictureWorkers(1)
    try:
        workers.begin(job, address())()
        (child,) = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
        os.kill(child.pid, signal.SIGTERM)
        child.wait(timeout=120)
        with pytest.raises(EnvironmentFault, match="max_data_loader_n_workers"):
            draw_until_noticed(workers, job)
    finally:
        workers.close()


PARENT = """
    import sys, time
    from pathlib import Path
    from sdft.dataset.picture_workers import PictureWorkers

    def seen():
        import sys
        return sorted({"torch", "diffusers", "transformers", "sdft.train"} & set(sys.modules))

    if __name__ == "__main__":
        workers = PictureWorkers(1)
        print(workers._pool.submit(seen).result(), flush=True)
        print(workers._pool.submit(__import__("os").getpid).result(), flush=True)
        time.sleep(600)
"""


def test_workers_import_no_torch_and_do_not_outlive_a_killed_run(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT), "utf-8")
    root = str(Path(sdft.__file__).parent.parent)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    try:
        assert parent.stdout.readline().strip() == "[]"
        worker = psutil.Process(int(parent.stdout.readline()))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    worker.wait(timeout=120)
