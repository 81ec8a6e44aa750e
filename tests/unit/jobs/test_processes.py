"""Processes that are started together: one's end is the end of all, and is named."""

from __future__ import annotations

import signal
import socket
import sys

import pytest

from sdft.errors import EnvironmentFault
from sdft.events import Notice
from sdft.jobs import processes
from sdft.jobs.processes import environment_of, run_processes
from sdft.processes import ALONE, Place, own_place

WAIT = "import time; time.sleep(600)"
"""Longer than a test may take: who is not ended makes it fail."""


def run(script, *, tmp_path, again=None, **how):
    """Run Python text in two processes; `rank`, `size` and `port` are known to it."""
    said = []
    ranks = "import os, sys, signal; rank = int(os.environ['RANK'])\n"
    words = [ranks + script]
    arguments = {
        "num_processes": 2,
        "max_restarts": 0,
        "port": None,
        "resume_hint": "go on with: sdft train",
        "program": (sys.executable, "-c"),
    } | how
    code = run_processes(words, [ranks + (again or script)], emit=said.append, **arguments)
    return code, said


def test_each_process_is_told_its_place(tmp_path):
    script = (
        "open(os.path.join(r'{}', str(rank)), 'w').write(' '.join(os.environ[n] for n in names))"
    )
    names = "names = ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')\n"
    code, said = run(names + script.format(tmp_path), tmp_path=tmp_path)
    assert (code, said) == (0, [])
    first, second = ((tmp_path / name).read_text().split() for name in ("0", "1"))
    assert first[:3] == ["2", "0", "127.0.0.1"]
    assert second[:3] == ["2", "1", "127.0.0.1"]
    assert first[3] == second[3]


def test_a_killed_process_is_named_and_ends_the_others_at_once(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        run(f"os.kill(os.getpid(), signal.SIGKILL) if rank else None; {WAIT}", tmp_path=tmp_path)
    assert "process 1 of 2 was killed by SIGKILL" in str(caught.value)
    assert "go on with: sdft train" in str(caught.value)


def test_the_cause_is_named_and_not_who_only_lost_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "CAUSE_WITHIN_S", 120.0)
    script = (
        "import time\n"
        "if rank == 0: sys.exit(76)\n"
        "time.sleep(0.5); os.kill(os.getpid(), signal.SIGTERM)"
    )
    with pytest.raises(EnvironmentFault, match="process 1 of 2 was killed by SIGTERM"):
        run(script, tmp_path=tmp_path)


def test_a_process_that_says_its_error_itself_gives_its_exit_code(tmp_path):
    code, said = run(f"sys.exit(4) if rank else None; {WAIT}", tmp_path=tmp_path, max_restarts=3)
    assert code == 4
    assert said == [], "a mistake of the user's is not tried again"


def test_a_stop_that_was_asked_for_waits_for_all_and_is_no_crash(tmp_path):
    mark = tmp_path / "saved"
    script = f"import time\nif rank == 0: time.sleep(1); open(r'{mark}', 'w')\nsys.exit(5)"
    code, said = run(script, tmp_path=tmp_path, max_restarts=3)
    assert (code, said) == (5, [])
    assert mark.exists()


def test_a_crash_is_followed_by_as_many_new_starts_as_were_allowed(tmp_path):
    crash = f"os.kill(os.getpid(), signal.SIGKILL) if rank else None; {WAIT}"
    code, said = run(crash, tmp_path=tmp_path, again="sys.exit(0)", max_restarts=2)
    assert code == 0
    assert [type(one) for one in said] == [Notice, Notice]
    assert "process 1 of 2 was killed by SIGKILL" in said[0].message
    assert "1 of 2 new starts" in said[1].message
    said.clear()
    with pytest.raises(EnvironmentFault):
        run(crash, tmp_path=tmp_path, max_restarts=1)


def test_a_signal_to_end_is_passed_on_and_the_processes_end_by_themselves(tmp_path):
    listens = tmp_path / "listens"
    script = (
        "import time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        f"if rank == 0: open(r'{listens}', 'w')\n"
        f"while not os.path.exists(r'{listens}'): time.sleep(0.01)\n"
        "if rank: os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(600)"
    )
    before = signal.getsignal(signal.SIGTERM)
    assert run(script, tmp_path=tmp_path)[0] == 5
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_in_use_is_an_error_before_anything_starts(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EnvironmentFault) as caught:
            run("raise AssertionError", tmp_path=tmp_path, port=port)
    assert f"port {port} is in use" in str(caught.value)
    assert "process 0" in str(caught.value)


def test_a_process_knows_its_place_by_the_variables_of_any_starter():
    assert own_place({}) is ALONE
    told = environment_of(1, 4, 29500, {})
    assert own_place(told) == Place(rank=1, size=4, local_rank=1)
    assert told["OMP_NUM_THREADS"].isdigit()
    assert environment_of(0, 2, 1, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
    torchrun = told | {"LOCAL_RANK": "0", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert own_place(torchrun) == Place(rank=1, size=4, local_rank=0, attempt=2)


@pytest.mark.parametrize("variables", [{"RANK": "4"}, {"RANK": "x"}, {"WORLD_SIZE": "0"}])
def test_variables_that_name_no_process_are_an_error(variables):
    with pytest.raises(EnvironmentFault, match="RANK="):
        own_place({"WORLD_SIZE": "4", "RANK": "0"} | variables)
