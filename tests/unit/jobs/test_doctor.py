from __future__ import annotations

import getpass
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sdft.errors import Problem
from sdft.events import ignore
from sdft.jobs import doctor
from sdft.jobs.diagnosis import (
    CUDA_WHEELS,
    INSTALL_CUDA_TORCH,
    Facts,
    device_fault,
    diagnosed,
)
from sdft.jobs.doctor import device_problem, run_doctor
from sdft.jobs.environment import (
    NvidiaDriver,
    TorchBuild,
    environment_facts,
    hide_home,
    torch_build,
)
from sdft.jobs.probe import MARK, _read, probe
from sdft.language import Words

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

HEALTHY = Facts(
    system="Windows 11, AMD64",
    python="3.12.8",
    driver=None,
    build=CPU_TORCH,
    tried=TRIED,
    versions={},
    free_bytes=200 * 10**9,
    memory_bytes=32 * 10**9,
    available_bytes=20 * 10**9,
    on_windows=True,
)


def states(result) -> dict[str, str]:
    return {finding.name: finding.state for finding in result.findings}


def fault(**facts) -> Problem:
    """Return the one problem that these facts add to a machine that is otherwise in order."""
    sound = {name: found for name, found in TRIED.items() if "error" not in found}
    (problem,) = diagnosed(replace(HEALTHY, tried=sound, **facts)).problems
    return problem


def test_a_machine_in_order_has_no_problem():
    sound = {"torch": TRIED["torch"]}
    assert diagnosed(replace(HEALTHY, tried=sound, long_paths=True)).problems == ()


def test_absent_and_broken_packages_say_what_is_used_instead():
    result = diagnosed(HEALTHY)
    assert states(result)["bitsandbytes"] == "broken"
    assert states(result)["xformers"] == "absent"
    assert states(result)["triton"] == "ok"
    notes = {finding.name: finding.note for finding in result.findings}
    assert "AdamW" in notes["bitsandbytes"]
    assert "torch's own attention" in notes["xformers"]
    assert "python -m pip install xformers" in notes["xformers"]
    assert any("libcudart" in problem.what for problem in result.problems)
    assert result.device == "cpu"


def driver(version: str) -> NvidiaDriver:
    return replace(DRIVER, version=version)


@pytest.mark.parametrize(
    ("version", "cuda", "key", "line"),
    [
        ("551.86", "13.0", "driver_too_old_for_torch", INSTALL_CUDA_TORCH),
        ("516.94", "12.8", "driver_too_old", "winget install Nvidia.NvidiaApp"),
        ("516.94", "13.0", "driver_too_old", "winget install Nvidia.NvidiaApp"),
        ("581.15", "13.0", "card_unusable", "start the machine again"),
        ("unknown", "12.8", "card_unusable", "start the machine again"),
    ],
)
def test_a_driver_too_old_for_torch_is_told_with_the_line_that_mends_it(version, cuda, key, line):
    problem = fault(driver=driver(version), build=replace(CUDA_TORCH, cuda=cuda))
    assert problem.key == key
    assert line in problem.fix


def test_drivers_of_linux_have_numbers_of_their_own():
    old = driver("526.98")
    build = replace(CUDA_TORCH, cuda="12.8")
    assert fault(driver=old, build=build).key == "driver_too_old"
    assert fault(driver=old, build=build, on_windows=False).key == "card_unusable"
    assert "ubuntu-drivers" in fault(driver=driver("470.1"), build=build, on_windows=False).fix


def test_a_torch_without_cuda_beside_a_driver_is_told_with_the_line_of_the_readme():
    problem = fault(driver=DRIVER)
    assert problem.key == "torch_without_cuda"
    assert INSTALL_CUDA_TORCH in problem.fix


def test_a_torch_that_does_not_import_is_a_problem():
    result = diagnosed(replace(HEALTHY, tried={"torch": {"error": "ImportError: no DLL"}}))
    assert states(result)["torch"] == "broken"
    assert any("no DLL" in problem.what for problem in result.problems)


def test_no_torch_at_all_is_a_problem_and_a_card_gets_one_with_cuda():
    assert states(diagnosed(replace(HEALTHY, build=None)))["torch"] == "absent"
    assert "--index-url" not in fault(build=None).fix
    assert INSTALL_CUDA_TORCH in fault(build=None, driver=DRIVER).fix


def test_two_onnxruntimes_are_told_with_the_lines_that_leave_the_faster_one():
    problem = fault(versions={"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"})
    assert problem.where == "onnxruntime"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu\n" in problem.fix
    assert problem.fix.endswith("pip install onnxruntime-gpu")


def test_long_paths_that_are_off_are_told_with_the_line_that_lets_them_in():
    problem = fault(long_paths=False)
    assert "LongPathsEnabled /t REG_DWORD /d 1" in problem.fix
    assert "administrator" in problem.fix


def test_a_working_card_is_what_will_be_used():
    card = {"name": "RTX 3060", "memory_bytes": 12 * 2**30, "capability": "8.6", "bf16": True}
    tried = {"torch": {"cuda_available": True, "devices": [card]}}
    result = diagnosed(replace(HEALTHY, driver=DRIVER, build=CUDA_TORCH, tried=tried))
    assert result.device == "cuda"
    assert any("bf16" in finding.note for finding in result.findings)
    assert states(result)["torch"] == "ok"


def test_little_room_is_a_problem():
    result = diagnosed(replace(HEALTHY, free_bytes=9 * 10**9, memory_bytes=7 * 10**9))
    assert states(result)["disk"] == "problem"
    assert states(result)["memory"] == "problem"


def test_every_note_and_every_problem_is_told_in_japanese_too():
    """Whatever the facts: nothing is left in English but names and lines to type."""
    words = Words("ja")
    broken = {name: {"error": "E"} for name in ("bitsandbytes", "xformers.ops", "onnxruntime")}
    sound = {name: {} for name in ("bitsandbytes", "xformers.ops", "triton", "onnxruntime")}
    old = {"driver": driver("470.1"), "build": CUDA_TORCH}
    machines = [
        replace(HEALTHY, free_bytes=1, memory_bytes=1, long_paths=False),
        replace(HEALTHY, tried=TRIED | broken | {"triton": {"error": "E"}}, **old),
        replace(HEALTHY, tried=TRIED | sound, driver=DRIVER),
        replace(HEALTHY, tried={"torch": {"error": "E"}}),
        replace(HEALTHY, build=None, versions={"onnxruntime": "1", "onnxruntime-gpu": "1"}),
        replace(HEALTHY, driver=driver("551.1"), build=replace(CUDA_TORCH, cuda="13.0")),
        replace(HEALTHY, driver=DRIVER, build=CUDA_TORCH),
    ]
    for result in map(diagnosed, machines):
        for finding in result.findings:
            if finding.key:
                assert words.note(finding.key, finding.values, "") != ""
        for problem in result.problems:
            told = words.problem(problem)
            assert told.what != problem.what or problem.key == "package_broken"
            assert bool(told.fix) == bool(problem.fix)


def test_this_machine_can_be_looked_at(tmp_path):
    result = run_doctor(tmp_path / "not" / "there", emit=ignore)
    assert {"python", "system", "torch", "disk", "memory"} <= set(states(result))
    assert states(result)["torch"] in ("ok", "problem")


def test_nothing_that_is_shared_says_who_or_where_the_user_is(tmp_path):
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
