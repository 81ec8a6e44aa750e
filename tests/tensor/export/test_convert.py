"""Converting loses nothing: names, tensors, metadata, and what is written on request."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sdft.errors import DataError, UserError
from sdft.events import Notice, StageProgress, ignore
from sdft.export.layout import original_tensors
from sdft.formats.lazy import LazyTensor
from sdft.jobs import convert as convert_job
from sdft.jobs.convert import form_of_name
from sdft.jobs.verify import verify_model
from sdft.models.family import FAMILIES
from sdft.models.open import open_model
from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes
from tests.tensor.export.converting import convert
from tests.tensor.models.files import changed, single_file
from tests.unit.formats.hostile import Zeros

GOLDEN = Path(__file__).parents[2] / "golden"

BEFORE_THE_UNET = {
    "betas": torch.linspace(0.1, 0.9, 1000, dtype=torch.float64),
    "alphas_cumprod": torch.linspace(0.9, 0.1, 1000),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}

ORIGIN = {
    "modelspec.license": "CreativeML Open RAIL-M",
    "modelspec.merged_from": "a, b",
    "modelspec.title": "Mine",
    "ss_anything": "kept",
}


def golden(name):
    rows = [line.split() for line in (GOLDEN / name).read_text(encoding="utf-8").splitlines()]
    return {name: tuple(map(int, shape)) for name, *shape in rows}


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


# Names and shapes, against lists made by the original programs.


@pytest.mark.parametrize(("family", "generation"), [("sd1", "sd1"), ("sd2-v", "sd2")])
def test_the_written_names_and_shapes_are_those_of_the_original_programs(family, generation):
    is_sd1 = generation == "sd1"
    width = 768 if is_sd1 else 1024
    sizes = {
        "unet": UNetSizes(
            widths=(320, 640, 1280, 1280),
            layers_per_block=2,
            has_attention=(True, True, True, False),
            context_width=width,
            linear_projection=not is_sd1,
            in_channels=4,
            out_channels=4,
        ),
        "vae": VaeSizes(widths=(128, 256, 512, 512), layers_per_block=2, latent_channels=4),
        "text_encoder": TextSizes(
            width=width,
            mlp_width=4 * width,
            num_layers=12 if is_sd1 else 23,
            vocabulary_size=49408,
            positions=77,
        ),
    }
    by_diffusers = golden(f"{generation}_diffusers.txt")
    ours = {f"{part}/{n}": s for part, size in sizes.items() for n, s in size.tensors().items()}
    assert ours == by_diffusers
    weights = {
        part: {n: LazyTensor.of(Zeros(), n, "F16", s) for n, s in size.tensors().items()}
        for part, size in sizes.items()
    }
    written = original_tensors(weights, {}, FAMILIES[family])
    assert {n: t.shape for n, t in written.items()} == golden(f"{generation}_original.txt")
    counts = [
        sum(name.startswith(prefix) for name in written)
        for prefix in ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    ]
    assert counts == ([686, 248, 196] if is_sd1 else [686, 248, 294])


# There and back.


@pytest.fixture(scope="module", params=["sd1", "sd2-base", "sd2-v"])
def wild(request, toys, module_folder):
    """A single file with everything that a diffusers folder has no place for."""
    folder = module_folder("wild")

    def change(state):
        generator = torch.Generator().manual_seed(7)
        for name in (
            "cond_stage_model.model.text_projection",
            "cond_stage_model.model.logit_scale",
        ):
            if name in state:
                state[name] = torch.randn(state[name].shape, generator=generator)
        for name in [name for name in state if ".resblocks.3." in name]:
            state[name] = torch.randn(state[name].shape, generator=generator)
        halves = {name: t.half() for name, t in state.items() if name.startswith("model.")}
        return state | halves | BEFORE_THE_UNET

    said = {"modelspec.prediction_type": "v" if request.param == "sd2-v" else "epsilon"}
    return changed(toys[request.param], folder / "wild.safetensors", change, ORIGIN | said)


@pytest.mark.parametrize("between", ["diffusers", "diffusers_safetensors", "ckpt"])
@pytest.mark.parametrize("last", ["safetensors", "ckpt"])
def test_there_and_back_gives_the_same_tensors_and_metadata(wild, tmp_path, between, last):
    middle = convert(wild, tmp_path / "middle", form=between)
    back = convert(middle, tmp_path / "back", form=last)
    if last == "ckpt":
        assert_same_tensors(torch.load(back, weights_only=True)["state_dict"], load_file(wild))
        back = convert(back, tmp_path / "again.safetensors")
    assert_same_tensors(load_file(back), load_file(wild))
    kept = metadata_of(wild)
    assert kept.items() <= metadata_of(back).items()


def test_the_counters_of_a_ckpt_survive_a_folder(toys, tmp_path):
    first = convert(toys["sd1"], tmp_path / "a.ckpt", epoch=3, global_step=700)
    back = convert(convert(first, tmp_path / "folder"), tmp_path / "b.ckpt")
    loaded = torch.load(back, weights_only=True)
    assert (loaded["epoch"], loaded["global_step"]) == (3, 700)


def test_the_same_model_gives_the_same_file(toys, tmp_path):
    for name in ("a.safetensors", "a.ckpt"):
        first = convert(toys["sd1"], tmp_path / "one" / name)
        second = convert(toys["sd1"], tmp_path / "two" / name)
        assert first.read_bytes() == second.read_bytes()


# What is written.


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.safetensors", "safetensors"),
        ("a.SafeTensors", "safetensors"),
        ("a.ckpt", "ckpt"),
        ("a.pt", "ckpt"),
        ("folder", "diffusers_safetensors"),
        ("sd-v1.5", "diffusers_safetensors"),
    ],
)
def test_the_destination_s_name_says_the_form(name, form):
    assert form_of_name(Path(name)) == form


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", "F16"), ("bf16", "BF16"), ("float", "F32")]
)
def test_save_precision_changes_the_networks_and_leaves_schedules_alone(
    wild, tmp_path, precision, dtype
):
    path = convert(wild, tmp_path / "a.safetensors", save_precision=precision)
    source = open_model(path)
    dtypes = {t.dtype for tensors in source.weights.values() for t in tensors.values()}
    assert dtypes == {dtype}
    assert source.extras["betas"].dtype == "F64"


def test_the_hash_is_that_of_the_bytes_after_the_header(toys, tmp_path):
    path = convert(toys["sd1"], tmp_path / "a.safetensors")
    raw = path.read_bytes()
    data = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert metadata_of(path)["modelspec.hash_sha256"] == "0x" + hashlib.sha256(data).hexdigest()
    assert verify_model(path, emit=ignore).hash_matches is True
    without = convert(path, tmp_path / "b.safetensors", with_hash=False)
    assert "modelspec.hash_sha256" not in metadata_of(without)


def test_licence_and_origin_are_carried_over_and_added_metadata_wins(wild, tmp_path):
    path = convert(wild, tmp_path / "a.safetensors", metadata={"modelspec.title": "New"})
    found = metadata_of(path)
    assert found["modelspec.license"] == ORIGIN["modelspec.license"]
    assert found["modelspec.merged_from"] == "a, b"
    assert found["modelspec.title"] == "New"
    assert found["modelspec.sai_model_spec"] == "1.0.1"


def test_no_name_of_this_machine_gets_into_a_file(toys, tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "qzxwuser")
    secret = str(tmp_path).encode()
    file = convert(toys["sd1"], tmp_path / "a.ckpt")
    folder = convert(file, tmp_path / "folder")
    for path in [file, *(p for p in folder.rglob("*") if p.is_file())]:
        raw = path.read_bytes()
        assert secret not in raw
        assert b"qzxwuser" not in raw


def test_another_vae_is_baked_in(toys, tmp_path):
    path = convert(toys["sd1"], tmp_path / "a.safetensors", vae=toys["sd2-v"])
    other = load_file(toys["sd2-v"] / "vae" / "diffusion_pytorch_model.safetensors")
    baked = load_file(path)["first_stage_model.encoder.conv_in.weight"]
    assert torch.equal(baked, other["encoder.conv_in.weight"])


def with_ema(state):
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
        for name, tensor in state.items()
        if name.startswith("model.diffusion_model.")
    }
    return state | averages | {"model_ema.decay": torch.tensor(0.9)}


def test_running_averages_are_dropped_or_used(toys, tmp_path):
    path = changed(toys["sd1"], tmp_path / "ema.safetensors", with_ema)
    plain = load_file(single_file(toys["sd1"], tmp_path / "plain.safetensors"))
    told = []
    dropped = convert(path, tmp_path / "a.safetensors", emit=told.append)
    assert_same_tensors(load_file(dropped), plain)
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert notices == ["684 EMA tensors are left out; --ema use takes them instead"]
    used = load_file(convert(path, tmp_path / "b.safetensors", ema="use"))
    name = "model.diffusion_model.out.2.weight"
    assert torch.equal(used[name], plain[name] + 1)
    with pytest.raises(DataError, match="no EMA weights"):
        convert(toys["sd1"], tmp_path / "c.safetensors", ema="use")


def test_a_number_too_large_for_fp16_stops_the_conversion(toys, tmp_path):
    def change(state):
        state["model.diffusion_model.out.2.bias"] += 1e5
        return state

    path = changed(toys["sd1"], tmp_path / "a.safetensors", change)
    words = r"\.out\.2\.bias\" has numbers that are too large"
    with pytest.raises(DataError, match=words):
        convert(path, tmp_path / "b.safetensors", save_precision="fp16")
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    convert(path, tmp_path / "b.safetensors", save_precision="bf16")


def test_an_sd2_file_that_says_nothing_is_copied_saying_nothing(toys, tmp_path):
    path = changed(toys["sd2-v"], tmp_path / "a.safetensors", lambda state: state)
    told = []
    copy = convert(path, tmp_path / "b.safetensors", emit=told.append)
    assert "modelspec.prediction_type" not in metadata_of(copy)
    assert any(isinstance(event, Notice) for event in told)
    with pytest.raises(UserError, match="neither its metadata"):
        convert(path, tmp_path / "folder")
    folder = convert(path, tmp_path / "folder", v_parameterization=True)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"


def test_what_a_file_says_of_its_prediction_can_be_mended(toys, tmp_path):
    path = convert(toys["sd2-v"], tmp_path / "a.safetensors", prediction_type="epsilon")
    assert metadata_of(path)["modelspec.prediction_type"] == "epsilon"
    assert open_model(path).stated_prediction == "epsilon"


def test_progress_is_told_in_steps(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_job, "PROGRESS_BYTES", 2**22)
    told = []
    convert(toys["sd1"], tmp_path / "a.safetensors", emit=told.append)
    done = [event.done for event in told if isinstance(event, StageProgress)]
    assert done == sorted(done)
    assert 3 < len(done) < 9
