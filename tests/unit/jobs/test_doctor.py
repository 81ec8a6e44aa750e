from __future__ import annotations

import getpass
import json
import platform
import sys
from pathlib import Path

import pytest

from sdft.events import ignore
from sdft.jobs import doctor
from sdft.jobs.doctor import CUDA_WHEELS, device_fault, device_problem, run_doctor
from sdft.jobs.environment import (
    NvidiaDriver,
    TorchBuild,
    environment_facts,
    hide_home,
    torch_build,
)
from sdft.jobs.probe import MARK, _read, probe

CPU_TORCH = TorchBuild(version="2.13.0+cpu", cuda=None, hip=None)
CUDA_TORCH = TorchBuild(version="2.13.0", cuda="12.8", hip=None)
ROCM_TORCH = TorchBuild(version="2.13.0", cuda=None, hip="6.4")
DRIVER = NvidiaDriver(version="570.1", gpus=("NVIDIA GeForce RTX 3060",), memory_mib=(12288,))


def test_a_driver_beside_a_torch_without_cuda_is_a_problem_with_its_cure():
    for device in (None, "auto", "cuda", "cuda:1"):
        problem = device_fault(device, CPU_TORCH, DRIVER)
        assert problem is not None
        assert CUDA_WHEELS in problem.fix
        assert "--device cpu" in problem.fix


def test_a_cuda_device_without_a_driver_is_a_problem():
    problem = device_fault("cuda", CPU_TORCH, None)
    assert problem is not None
    assert "--device cuda" in problem.where


@pytest.mark.parametrize(
    ("device", "build", "driver"),
    [
        ("auto", CPU_TORCH, None),
        ("auto", CUDA_TORCH, DRIVER),
        ("auto", CUDA_TORCH, None),
        ("auto", ROCM_TORCH, DRIVER),
        ("auto", None, DRIVER),
    ],
)
def test_what_fits_together_is_no_problem(device, build, driver):
    assert device_fault(device, build, driver) is None


def test_whoever_asks_for_the_cpu_gets_it(monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: DRIVER)
    monkeypatch.setattr(doctor, "torch_build", lambda: CPU_TORCH)
    assert device_problem("cpu") is None
    assert device_problem("auto") is not None


def test_the_build_of_torch_is_known_without_importing_it():
    build = torch_build()
    assert build is not None
    assert build.version[0].isdigit()


def test_every_trial_answers_and_none_brings_the_others_down():
    tried = probe()
    assert "error" not in tried["torch"]
    assert tried["torch"]["threads"] >= 1
    assert set(tried) == {"torch", "bitsandbytes", "xformers.ops", "triton", "onnxruntime"}


def test_a_crash_is_known_by_the_name_of_the_trial():
    lines = [{"name": "torch"}, {"name": "torch", "facts": {"a": 1}}, {"name": "triton"}]
    text = "noise\n" + "\n".join(MARK + json.dumps(line) for line in lines)
    assert _read(text, "crashed with code -11") == {
        "torch": {"a": 1},
        "triton": {"error": "crashed with code -11"},
    }


TRIED = {
    "torch": {"version": "2.13.0", "cuda_available": False, "devices": []},
    "bitsandbytes": {"error": "OSError: libcudart.so.12 is missing"},
    "xformers.ops": {"absent": True},
    "triton": {},
}


@pytest.fixture
def machine(monkeypatch):
    """A machine whose parts a test chooses."""

    def machine(*, driver=None, build=CPU_TORCH, tried=TRIED, versions=None):
        monkeypatch.setattr(doctor, "nvidia_driver", lambda: driver)
        monkeypatch.setattr(doctor, "torch_build", lambda: build)
        monkeypatch.setattr(doctor, "probe", lambda: tried)
        monkeypatch.setattr(doctor, "package_versions", lambda: versions or {})

    return machine


def states(result) -> dict[str, str]:
    return {finding.name: finding.state for finding in result.findings}


def test_absent_and_broken_packages_say_what_is_used_instead(machine, tmp_path):
    machine()
    result = run_doctor(tmp_path, emit=ignore)
    assert states(result)["bitsandbytes"] == "broken"
    assert states(result)["xformers"] == "absent"
    assert states(result)["triton"] == "ok"
    notes = {finding.name: finding.note for finding in result.findings}
    assert "AdamW" in notes["bitsandbytes"]
    assert "torch's own attention" in notes["xformers"]
    assert any("libcudart" in problem.what for problem in result.problems)
    assert result.device == "cpu"


def test_an_old_driver_is_a_problem(machine, tmp_path):
    machine(driver=DRIVER, build=CUDA_TORCH)
    result = run_doctor(tmp_path, emit=ignore)
    assert states(result)["torch"] == "problem"
    assert any("driver" in problem.fix for problem in result.problems)


def test_a_torch_that_does_not_import_is_a_problem(machine, tmp_path):
    machine(tried={"torch": {"error": "ImportError: no DLL"}})
    result = run_doctor(tmp_path, emit=ignore)
    assert states(result)["torch"] == "broken"
    assert any("no DLL" in problem.what for problem in result.problems)


def test_no_torch_at_all_is_a_problem(machine, tmp_path):
    machine(build=None)
    assert states(run_doctor(tmp_path, emit=ignore))["torch"] == "absent"


def test_two_onnxruntimes_are_a_problem(machine, tmp_path):
    machine(versions={"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"})
    problems = run_doctor(tmp_path, emit=ignore).problems
    assert any(problem.where == "onnxruntime" for problem in problems)


def test_a_working_card_is_what_will_be_used(machine, tmp_path):
    card = {"name": "RTX 3060", "memory_bytes": 12 * 2**30, "capability": "8.6", "bf16": True}
    machine(
        driver=DRIVER,
        build=CUDA_TORCH,
        tried={"torch": {"cuda_available": True, "devices": [card]}},
    )
    result = run_doctor(tmp_path, emit=ignore)
    assert result.device == "cuda"
    assert any("bf16" in finding.note for finding in result.findings)
    assert states(result)["torch"] == "ok"


def test_little_room_is_a_problem(machine, tmp_path, monkeypatch):
    machine()
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 10**18)
    monkeypatch.setattr(doctor, "LOW_MEMORY_BYTES", 10**18)
    result = run_doctor(tmp_path / "not" / "there", emit=ignore)
    assert states(result)["disk"] == "problem"
    assert states(result)["memory"] == "problem"


def test_nothing_that_is_shared_says_who_or_where_the_user_is(machine, tmp_path):
    machine()
    texts = [
        json.dumps(environment_facts()),
        json.dumps(run_doctor(tmp_path, emit=ignore).as_json()),
    ]
    for text in texts:
        assert platform.node() not in text
        assert str(Path.home()) not in text
        assert str(tmp_path) not in text
        assert sys.executable not in text
        # A user called "root" or "sd" would be found in other words.
        if len(getpass.getuser()) > 4:
            assert getpass.getuser() not in text


def test_the_facts_of_a_machine_name_the_versions_that_matter():
    facts = environment_facts()
    assert {"torch", "diffusers", "numpy"} <= set(facts["packages"])
    assert facts["python"] == platform.python_version()
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("/home/ann/x", "~/x"),
        ("--out=/home/ann/x /home/ann", "--out=~/x ~"),
        ("/data/home/ann/x", "/data/home/ann/x"),
        ("/home/anna/x /home/ann-2", "/home/anna/x /home/ann-2"),
        ("'/home/ann/my cats'", "'~/my cats'"),
    ],
)
def test_the_home_folder_is_hidden_where_it_is_a_whole_part_of_a_path(text, hidden):
    assert hide_home(text, {"HOME": "/home/ann"}) == hidden


def test_a_windows_home_is_hidden_in_either_spelling():
    environment = {"USERPROFILE": r"C:\Users\ann"}
    assert hide_home(r"C:\Users\ann\x C:/Users/ann/y", environment) == r"~\x ~/y"


def test_a_home_at_the_root_hides_nothing():
    assert hide_home("/data/x", {"HOME": "/"}) == "/data/x"
