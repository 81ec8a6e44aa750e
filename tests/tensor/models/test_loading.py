"""A model loads from every form it comes in, and what it is comes from the file itself."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdft.errors import DataError, UserError
from sdft.models.bundle import load_bundle
from sdft.models.facts import inspect_model
from sdft.models.source import PARTS
from tests.tensor.models.files import changed, renamed, single_file, state_of, without

CLIP = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
UNET = "model.diffusion_model."
VAE = "first_stage_model."


def weights(bundle):
    return {
        f"{part}/{name}": tensor
        for part, network in bundle.networks.items()
        for name, tensor in network.state_dict().items()
    }


def assert_same_weights(bundle, expected):
    found, expected = weights(bundle), weights(expected)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("family", ["sd1", "sd2-base", "sd2-v"])
@pytest.mark.parametrize("form", ["safetensors", "ckpt", "diffusers", "diffusers_safetensors"])
def test_a_model_is_the_same_in_every_form(toys, tmp_path, family, form):
    path = single_file(toys[family], tmp_path / "model", form=form)
    bundle = load_bundle(path)
    assert (bundle.family.name, bundle.form) == (family, form)
    assert bundle.prediction_type == ("v_prediction" if family == "sd2-v" else "epsilon")
    assert_same_weights(bundle, load_bundle(toys[family]))


def test_the_form_is_told_by_the_content_not_by_the_name(toys, tmp_path):
    path = single_file(toys["sd1"], tmp_path / "a.safetensors").rename(tmp_path / "a.ckpt")
    assert load_bundle(path, parts=("vae",)).form == "safetensors"
    path = single_file(toys["sd1"], tmp_path / "b.ckpt").rename(tmp_path / "b.safetensors")
    assert load_bundle(path, parts=("vae",)).form == "ckpt"


@pytest.mark.parametrize(
    "new", ["cond_stage_model.transformer.", "conditioner.embedders.0.transformer.text_model."]
)
def test_the_text_encoder_s_prefix_may_vary(toys, tmp_path, new):
    path = changed(toys["sd1"], tmp_path / "a.safetensors", renamed(f"{CLIP}text_model.", new))
    assert_same_weights(load_bundle(path), load_bundle(toys["sd1"]))


def test_an_open_clip_under_the_newer_prefix_is_found(toys, tmp_path):
    change = renamed(OPEN_CLIP, "conditioner.embedders.0.model.")
    path = changed(toys["sd2-v"], tmp_path / "a.safetensors", change)
    bundle = load_bundle(path, v_parameterization=True)
    assert_same_weights(bundle, load_bundle(toys["sd2-v"]))


def test_of_open_clip_s_layers_the_last_is_kept_aside(toys, tmp_path):
    bundle = load_bundle(single_file(toys["sd2-base"], tmp_path / "a.safetensors"))
    last = {name for name in bundle.extras if ".resblocks.3." in name}
    assert len(last) == 12
    assert bundle.extras.keys() - last == {
        f"{OPEN_CLIP}text_projection",
        f"{OPEN_CLIP}logit_scale",
    }


def test_old_names_inside_a_vae_folder_are_understood(toys, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(toys["sd1"], folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = re.compile(r"(mid_block\.attentions\.0)\.(to_q|to_k|to_v|to_out\.0)\.")
    state = {
        pattern.sub(lambda match: f"{match[1]}.{old[match[2]]}.", name): tensor
        for name, tensor in load_file(file).items()
    }
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in state
    save_file(state, file)
    assert_same_weights(load_bundle(folder), load_bundle(toys["sd1"]))


def test_names_without_the_text_model_level_are_understood(toys, tmp_path):
    # As transformers writes them from 5.6 on.
    folder = tmp_path / "new"
    shutil.copytree(toys["sd1"], folder)
    file = folder / "text_encoder" / "model.safetensors"
    state = {n.removeprefix("text_model."): tensor for n, tensor in load_file(file).items()}
    state["embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, file)
    assert_same_weights(load_bundle(folder), load_bundle(toys["sd1"]))


@pytest.mark.parametrize("torch_form", [False, True])
def test_a_variant_is_taken_where_there_is_no_plain_file(toys, tmp_path, torch_form):
    folder = tmp_path / "variant"
    form = "diffusers" if torch_form else "diffusers_safetensors"
    single_file(toys["sd1"], folder, form=form, save_precision="fp16")
    for file in [*folder.rglob("*.bin"), *folder.glob("*/*.safetensors")]:
        file.rename(file.with_suffix(f".fp16{file.suffix}"))
    expected = load_bundle(single_file(toys["sd1"], tmp_path / "a.ckpt", save_precision="fp16"))
    bundle = load_bundle(folder)
    assert_same_weights(bundle, expected)
    assert next(bundle.unet.parameters()).dtype == torch.float32


def test_a_model_cut_into_several_files_is_put_together(toys, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(toys["sd1"], folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    file.unlink()
    names = sorted(state)
    halves = {"one.safetensors": names[:300], "two.safetensors": names[300:]}
    for shard, inside in halves.items():
        save_file({name: state[name] for name in inside}, folder / "unet" / shard)
    weight_map = {name: shard for shard, inside in halves.items() for name in inside}
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_same_weights(load_bundle(folder), load_bundle(toys["sd1"]))
    index.write_text(
        json.dumps({"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}})
    )
    with pytest.raises(DataError, match="is missing"):
        load_bundle(folder)


def test_the_running_averages_are_found_and_are_no_extras(toys, tmp_path):
    from sdft.models.open import open_model

    def with_ema(state):
        averages = {
            "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
            for name, tensor in state.items()
            if name.startswith(UNET)
        }
        counters = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(5)}
        return state | averages | counters | {"betas": torch.linspace(0, 1, 1000)}

    path = changed(toys["sd1"], tmp_path / "a.safetensors", with_ema)
    source = open_model(path)
    assert set(source.extras) == {"betas"}
    assert source.ema.keys() == source.weights["unet"].keys()
    facts = inspect_model(path)
    assert facts.num_ema_tensors == facts.parts["unet"].num_tensors


VAE_FORMS = (
    "original",
    "original with prefix",
    "diffusers file",
    "diffusers folder",
    "model",
    "ckpt",
)


@pytest.mark.parametrize("form", VAE_FORMS)
def test_a_vae_of_its_own_is_taken_in_every_form(toys, tmp_path, form):
    other = toys["sd2-v"]
    file = tmp_path / "vae.safetensors"
    prefixed = {n: t for n, t in state_of(other, tmp_path).items() if n.startswith(VAE)}
    plain = {name.removeprefix(VAE): tensor for name, tensor in prefixed.items()}
    if form == "original":
        save_file(plain, file)
    elif form == "original with prefix":
        save_file(prefixed, file)
    elif form == "diffusers file":
        shutil.copy(other / "vae" / "diffusion_pytorch_model.safetensors", file)
    elif form == "ckpt":
        torch.save({"state_dict": plain | {"loss.logvar": torch.ones(1)}}, file)
    else:
        file = other / "vae" if form == "diffusers folder" else other
    bundle = load_bundle(toys["sd1"], vae_path=file)
    expected = load_bundle(other, parts=("vae",)).vae.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in bundle.vae.state_dict().items())


def test_an_sdxl_vae_is_told_by_its_scale(toys, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(toys["sd1"] / "vae", folder)
    config = json.loads((folder / "config.json").read_text()) | {"scaling_factor": 0.13025}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="belongs to SDXL"):
        load_bundle(toys["sd1"], vae_path=folder)


def test_only_the_asked_networks_are_read_and_have_to_be_there(toys, tmp_path):
    path = changed(toys["sd1"], tmp_path / "a.safetensors", without(VAE))
    assert set(load_bundle(path, parts=("unet", "text_encoder")).networks) == {
        "unet",
        "text_encoder",
    }
    with pytest.raises(DataError, match="this model has no VAE") as caught:
        load_bundle(path)
    assert "--vae" in caught.value.problems[0].fix
    assert set(load_bundle(path, vae_path=toys["sd1"]).networks) == set(PARTS)


def test_weights_are_float32_whatever_the_file_has(toys, tmp_path):
    path = single_file(toys["sd1"], tmp_path / "a.safetensors", save_precision="bf16")
    bundle = load_bundle(path)
    assert {tensor.dtype for tensor in weights(bundle).values()} == {torch.float32}
    half = load_bundle(path, dtype=torch.float16, parts=("unet",))
    assert {tensor.dtype for tensor in weights(half).values()} == {torch.float16}


def test_loading_leaves_the_random_numbers_alone(toys):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_bundle(toys["sd1"])
    assert torch.equal(before, torch.get_rng_state())


# What the person says of the model, and what the file says.


def test_an_sd2_file_that_does_not_say_what_it_predicts_is_asked_about(toys, tmp_path):
    path = changed(toys["sd2-v"], tmp_path / "a.safetensors", lambda state: state)
    with pytest.raises(UserError, match="neither its metadata nor its shapes") as caught:
        load_bundle(path)
    assert "--v_parameterization for a 768-v model" in caught.value.problems[0].fix
    assert load_bundle(path, v_parameterization=True).family.name == "sd2-v"
    assert load_bundle(path, v_parameterization=False).family.name == "sd2-base"
    as_in_sd_scripts = load_bundle(path, v2=True)
    assert as_in_sd_scripts.family.name == "sd2-base"
    assert "does not say" in as_in_sd_scripts.notices[0]


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"modelspec.prediction_type": "v"}, "sd2-v"),
        ({"modelspec.prediction_type": "epsilon"}, "sd2-base"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd2-v"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "sd2-base"),
    ],
)
def test_the_metadata_decides_what_an_sd2_predicts(toys, tmp_path, metadata, family):
    path = changed(toys["sd2-v"], tmp_path / "a.safetensors", lambda state: state, metadata)
    assert load_bundle(path, parts=()).family.name == family


@pytest.mark.parametrize(
    ("family", "flags", "words"),
    [
        ("sd1", {"v2": True}, "is a Stable Diffusion 1.x; --v2 does not fit"),
        ("sd2-v", {"v2": False}, "is a Stable Diffusion 2.x; --no-v2 does not fit"),
        ("sd2-v", {"v_parameterization": False}, "it predicts v_prediction"),
        ("sd2-base", {"v_parameterization": True}, "it predicts epsilon"),
    ],
)
def test_a_flag_that_contradicts_the_file_is_answered_with_what_it_is(toys, family, flags, words):
    with pytest.raises(UserError, match=re.escape(words)):
        load_bundle(toys[family], **flags, parts=())


def test_the_heads_follow_the_family(toys, tmp_path):
    sd1 = load_bundle(single_file(toys["sd1"], tmp_path / "a.ckpt"), parts=("unet",)).unet
    assert {block.attn1.heads for block in blocks(sd1)} == {8}
    sd2 = load_bundle(single_file(toys["sd2-v"], tmp_path / "b.ckpt"), parts=("unet",)).unet
    widths = {block.attn1.to_q.in_features: block.attn1.heads for block in blocks(sd2)}
    assert widths == {32: 1, 64: 1}
    assert all(block.attn1.upcast_attention for block in blocks(sd2))


def blocks(unet):
    from diffusers.models.attention import BasicTransformerBlock

    return [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
