"""Each of the 167 options of sd-scripts' fine_tune.py has an effect, or an answer.

The supported ones take part in a run of the toy model (option_runs.py): what they were set to is
read back from the run folder, and code below the settings has to have read it during that run.
"""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from sdft.cli.app import run
from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.refused import NEEDLESS, REFUSED
from sdft.config.training import TrainingSettings
from tests.toy_pictures import write_pictures

HERE = Path(__file__).parent
REFERENCE = (HERE.parent / "unit" / "config" / "fine_tune_options.txt").read_text("utf-8").split()


def _table() -> Any:
    spec = spec_from_file_location("option_runs", HERE / "option_runs.py")
    module = module_from_spec(spec)
    sys.modules["option_runs"] = module
    spec.loader.exec_module(module)
    return module


TABLE = _table()
ROWS = [(name, row) for name, rows in TABLE.RUNS.items() for row in rows]

READ_AS = {
    # The attention that the three flags come to is one property of the settings.
    "xformers": "attention",
    "mem_eff_attn": "attention",
    "sdpa": "attention",
}
"""Settings that the engine reads under another name."""


@dataclass
class Ran:
    """What one run said and left."""

    code: int
    folder: Path
    read: set[str]
    """Names of the settings that code outside sdft.config read."""

    @property
    def config(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "config.toml").read_text("utf-8"))

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = (self.folder / "events.jsonl").read_text("ascii").splitlines()
        return [json.loads(line) for line in lines]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]

    def chosen(self) -> dict[str, Any]:
        return {one["name"]: one["value"] for one in self.of("SettingChosen")}

    def value_of(self, setting: str) -> Any:
        level, _, name = setting.rpartition(".")
        config = self.config
        table = {
            "": config,
            "dataset": config["datasets"][0],
            "subset": config["datasets"][0]["subsets"][0],
        }[level]
        return table.get(name)


@pytest.fixture(scope="module")
def home(prepared: Path, module_folder: Callable[[str], Path]) -> Path:
    """A folder with everything that the command lines name."""
    from tests.toy_model import save_toy_model

    folder = module_folder("options")
    shutil.copy(prepared / "model.safetensors", folder)
    shutil.copytree(prepared / "model" / "vae", folder / "model" / "vae")
    save_toy_model(folder / "model-v", seed=3, family="sd2-v")
    write_pictures(folder / "images", 4, side_px=160, seed=1)
    keys = {}
    for number, picture in enumerate(sorted((folder / "images").glob("*.[pj][np]g"))):
        keys[picture.stem] = {"caption": f"{{one|two}} shape {number}", "tags": "a; b;;;c; d"}
        with Image.open(picture) as image:
            image.convert("RGBA").save(picture.with_suffix(".png"))
        if picture.suffix != ".png":
            picture.unlink()
    (folder / "meta.json").write_text(json.dumps(keys), "utf-8")
    (folder / "prompts.txt").write_text("a cat --w 64 --h 64 --s 1 --d 1\n", "utf-8")
    Image.new("RGB", (8, 8)).save(folder / "thumbnail.png")
    (folder / "tracker.toml").write_text("[tensorboard]\nflush_secs = 1\n", "utf-8")
    (folder / "config.toml").write_text("[a]\nmax_data_loader_n_workers = 0\n", "utf-8")
    (folder / "dataset.toml").write_text(
        "[[datasets]]\nresolution = 128\nbatch_size = 2\n"
        "[[datasets.subsets]]\nimage_dir = 'images'\n",
        "utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def ran(home: Path) -> Iterator[dict[str, Ran]]:
    """Every run of the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        read: set[str] = set()
        for model in (TrainingSettings, DatasetSettings, SubsetSettings):
            patch.setattr(model, "__getattribute__", _noting(read), raising=False)
        runs = {}
        for name, rows in TABLE.RUNS.items():
            read.clear()
            output = next(row.words[0] for row in rows if row.option == "output_name")
            words = [*TABLE.words_of(rows), "--device", "cpu"]
            # A process has one precision; each run stands for a process of its own.
            AcceleratorState._reset_state(reset_partial_state=True)
            code = run(["train", *words])
            runs[name] = Ran(code, home / "out" / f"{output}.run", set(read))
            if name == "restarts":
                # The run that goes on from it writes the same folder.
                no_states = shutil.ignore_patterns("states")
                shutil.copytree(runs[name].folder, home / "restarts.run", ignore=no_states)
                runs[name].folder = home / "restarts.run"
            else:
                # Their files say what was saved; all runs' states take some hundred MB.
                shutil.rmtree(runs[name].folder / "states", ignore_errors=True)
        AcceleratorState._reset_state(reset_partial_state=True)
        yield runs


def _noting(read: set[str]) -> Any:
    """Return an attribute access that notes what code outside sdft.config asks for."""

    def getattribute(self: Any, name: str) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("sdft.") and not caller.startswith("sdft.config."):
            read.add(name)
        return object.__getattribute__(self, name)

    return getattribute


def test_the_table_has_every_option_that_is_neither_refused_nor_needless():
    supported = {name for name in REFERENCE if name not in REFUSED and name not in NEEDLESS}
    assert len(REFERENCE) == 167
    # Writes the settings and ends: see tests/cli/test_train_config.py.
    assert sorted(supported - {row.option for _, row in ROWS}) == ["output_config"]


@pytest.mark.parametrize("name", TABLE.RUNS)
def test_a_run_with_many_options_ends_well(ran, name):
    assert ran[name].code == 0
    assert ran[name].of("StepDone")


def test_every_option_stands_in_the_runs_config(ran):
    wrong = []
    for name, row in ROWS:
        if row.setting in ("dataset file", "config file"):
            continue
        value = ran[name].value_of(row.setting)
        if row.value is TABLE.HELD:
            fits = Path(str(value)).name == Path(row.words[0]).name
        else:
            fits = value == row.value and type(value) is type(row.value)
        # What this machine cannot do is chosen otherwise, and said.
        if not fits and row.setting not in ran[name].chosen():
            wrong.append((name, row.option, value))
    assert wrong == []


def test_every_option_is_read_by_what_does_the_work(ran):
    unread = []
    for name, row in ROWS:
        setting = row.setting.rpartition(".")[2]
        if setting.endswith(" file"):
            continue
        if READ_AS.get(setting, setting) not in ran[name].read:
            unread.append((name, row.option))
    assert unread == []


def test_the_old_form_saves_samples_logs_and_forgets_as_asked(ran, home):
    old = ran["old form"]
    saved = {path.name for path in (home / "out").iterdir()}
    assert {"old", "old-step00000001", "old.run"} <= saved
    assert [one["step"] for one in old.of("StateSaved")][-1] == 2
    assert [one["step"] for one in old.of("SampleSaved")] == [0, 2]
    assert next((home / "logs").glob("mine_*"), None) is not None
    losses = {one["step"]: one["loss"] for one in old.of("StepDone")}
    assert all(0 < loss < 100 for loss in losses.values())
    fates = (old.folder / "fates.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["repeats"] for line in fates} == {2}
    words = [one["message"] for one in old.of("Notice")]
    assert any("xformers" in message for message in words)
    assert any("was not sent to someone/cats/sd/old:" in message for message in words)
    assert any("someone/cats/sd/step00000002" in message for message in words)
    unet = load_file(home / "out" / "old" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {str(tensor.dtype) for tensor in unet.values()} == {"torch.float16"}


def test_what_the_cpu_lacks_is_said(ran):
    assert ran["files"].chosen()["mixed_precision"] == "no"
    assert ran["files"].chosen()["full_fp16"] is False


def test_files_in_three_forms_come_out(ran, home):
    assert ran["files"].code == 0
    assert (home / "out" / "files.ckpt").is_file()
    assert (home / "out" / "pixels.safetensors").is_file()
    assert (home / "out" / "velocity" / "unet").is_dir()


def test_the_metadata_options_stand_in_the_file(home, prepared):
    words = [*TABLE.words_of(TABLE.RESTARTS), *TABLE.words_of(TABLE.METADATA)]
    words[words.index("restarts")] = "described"
    words += ["--metadata_thumbnail", "thumbnail.png", "--device", "cpu", "--max_train_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert run(["train", *words]) == 0
    with safe_open(home / "out" / "described.safetensors", "pt") as file:
        metadata = file.metadata()
    for row in TABLE.METADATA:
        key = row.option.replace("metadata_", "modelspec.")
        assert metadata[key] == row.words[0]
    assert metadata["modelspec.thumbnail"].startswith("data:image/")


def test_a_run_goes_on_from_the_state_that_resume_names(ran):
    resumed = ran["resumed"]
    assert [one["first_step"] for one in resumed.of("RunStarted")][-1] == 3
    assert [one["step"] for one in resumed.of("StepDone")][-1] == 3


VALUES = {
    "console_log_level": ["DEBUG"],
    "console_log_file": ["log.txt"],
    "dataset_class": ["my.module.Set"],
    "huggingface_token": ["hf_xyz"],
    "wandb_api_key": ["abc"],
    "zero_stage": ["2"],
    "offload_optimizer_device": ["cpu"],
    "offload_optimizer_nvme_path": ["nvme"],
    "offload_param_device": ["cpu"],
    "offload_param_nvme_path": ["nvme"],
    "tokenizer_cache_dir": ["cache"],
}
"""Of the options that are answered and take a value; the others are flags."""

ANSWERED = [name for name in REFERENCE if name in REFUSED]
ACCEPTED = [name for name in REFERENCE if name in NEEDLESS]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_refused_option_ends_with_2_and_says_what_to_do_instead(home, monkeypatch, capsys, name):
    monkeypatch.chdir(home)
    words = [
        "--train_data_dir",
        "images",
        "--resolution",
        "128",
        f"--{name}",
        *VALUES.get(name, []),
    ]
    assert run(["train", *words]) == 2
    said = capsys.readouterr().err
    assert f"{name}: " in said
    assert REFUSED[name].split(";")[0] in " ".join(said.split())
    for secret in ("hf_xyz", "abc\n"):
        assert secret not in said


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_needless_option_is_accepted_and_said_to_be_so(home, monkeypatch, capsys, name):
    monkeypatch.chdir(home)
    words = ["--train_data_dir", "images", "--resolution", "128", "--caption_extension", ".txt"]
    assert run(["bucket", *words, f"--{name}", *VALUES.get(name, [])]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{name} is not needed" in said
