"""No secret in any file, and nothing about the person in what people share."""

from __future__ import annotations

import platform
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from sdft.cli.app import run

USER = "qzannebel"
"""No word of CLIP's vocabulary, which is in every diffusers folder."""

HOST = "qzannebels-tower"
SECRETS = {
    "WANDB_API_KEY": "wandb-0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "HUGGING_FACE_HUB_TOKEN": "hf_ZyXwVuTsRqPoNmLkJiHgFeDcBa",
}


@pytest.fixture(scope="module")
def home(prepared: Path, module_folder: Callable[[str], Path]) -> Path:
    """The home of a person in which a run has been done, sampled, reported and packed."""
    home = module_folder("homes") / USER
    work = home / "my pictures"
    shutil.copytree(prepared, work)
    (work / "prompts.txt").write_text("a cat --w 64 --h 64 --s 1\n", "utf-8")
    text = (work / "config.toml").read_text("utf-8")
    kept = [line for line in text.splitlines() if not line.startswith(("output_dir", "max_train"))]
    (work / "config.toml").write_text("\n".join(kept), "utf-8")
    out = work / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr(platform, "node", lambda: HOST)
        for name in ("HOME", "USERPROFILE"):
            patch.setenv(name, str(home))
        for name in ("USER", "USERNAME", "LOGNAME"):
            patch.setenv(name, USER)
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        AcceleratorState._reset_state(reset_partial_state=True)
        words = ["--output_dir", str(out), "--max_train_steps=1", "--sample_every_n_steps=1"]
        words += ["--sample_prompts", str(work / "prompts.txt"), "--device=cpu", "--save_state"]
        words += ["--save_state_on_train_end", "--log_config", "--logging_dir", str(work / "logs")]
        assert run(["train", str(work / "config.toml"), *words]) == 0
        folder = str(out / "demo.run")
        assert run(["report", folder, "--out", str(work / "report.html")]) == 0
        assert run(["doctor", "--bundle", folder, "--out", str(work / "bundle.zip")]) == 0
        checkpoint = str(out / "demo.safetensors")
        for form in ("demo.ckpt", "as-folder"):
            assert run(["convert", checkpoint, str(work / "shared" / form)]) == 0
        drawn = ["--output-dir", str(work / "drawn"), "--steps=1", "--width=64", "--height=64"]
        assert run(["sample", checkpoint, "--prompt", "a cat", *drawn]) == 0
    return home


def shared(home: Path) -> dict[str, bytes]:
    """Return the content of everything that people give to others, by a name for it."""
    work = home / "my pictures"
    folder = work / "out" / "demo.run"
    files = [
        work / "out" / "demo.safetensors",
        work / "report.html",
        folder / "environment.json",
        *(folder / "samples").rglob("*.png"),
        *(work / "drawn").rglob("*.png"),
        *(path for path in (work / "shared").rglob("*") if path.is_file()),
    ]
    content = {str(path.relative_to(work)): path.read_bytes() for path in files}
    for archive in (work / "bundle.zip", work / "shared" / "demo.ckpt"):
        with zipfile.ZipFile(archive) as opened:
            content |= {f"{archive.name}/{name}": opened.read(name) for name in opened.namelist()}
    return content


def spellings(text: str) -> list[bytes]:
    """Return how a text may stand in a file."""
    return [text.lower().encode("utf-8"), text.lower().encode("utf-16-le")]


def test_what_people_share_names_neither_user_nor_home_nor_host(home):
    files = shared(home)
    assert len(files) > 15
    assert sum(name.endswith(".png") for name in files) >= 2
    found = {
        (name, word)
        for name, content in files.items()
        for word in (USER, HOST, str(home))
        for spelling in spellings(word)
        if spelling in content.lower()
    }
    assert found == set()


def test_no_secret_stands_in_any_file(home):
    found = {
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file()
        for secret in SECRETS.values()
        for spelling in spellings(secret)
        if spelling in path.read_bytes().lower()
    }
    assert found == set()


@pytest.mark.parametrize("name", ["wandb_api_key", "huggingface_token"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_secret_on_the_line_is_refused_and_shown_nowhere(home, monkeypatch, capsys, name, joined):
    monkeypatch.chdir(home / "my pictures")
    given = [f"--{name}=s3cr3t"] if joined else [f"--{name}", "s3cr3t"]
    words = ["--output_dir", "other", *given]
    assert run(["train", "config.toml", *words]) == 2
    said = capsys.readouterr()
    assert name in said.err
    assert "s3cr3t" not in said.err + said.out
    assert not (home / "my pictures" / "other").exists()
