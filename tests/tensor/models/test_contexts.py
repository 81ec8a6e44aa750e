"""Contexts and attention, against transformers' and diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from sdft.errors import UserError
from sdft.models.attention import UpcastAttention, choose_attention, set_attention
from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks, inner_model, state_for, text_state_dict

CAPTIONS = ("a cat, sitting", "", ", ".join(f"tag{n}" for n in range(60)))


@pytest.fixture(scope="module")
def sd1(toys):
    return load_bundle(toys["sd1"], parts=("text_encoder",))


@pytest.fixture(scope="module")
def sd2(toys):
    return load_bundle(toys["sd2-v"], parts=("text_encoder",))


def ids_of(bundle, length, captions=CAPTIONS):
    return torch.tensor([bundle.tokenizer.chunks(caption, length) for caption in captions])


def contexts(bundle, ids_BKS, clip_skip=None):
    return encode_chunks(
        bundle.text_encoder, ids_BKS, clip_skip=clip_skip, tokenizer=bundle.tokenizer
    )


def layer_output(bundle, ids_NS, num_layers):
    """The first layers one by one, then the final norm; no part of transformers' own forward."""
    model = inner_model(bundle.text_encoder)
    states = model.embeddings.token_embedding(ids_NS) + model.embeddings.position_embedding.weight
    mask = torch.full((77, 77), float("-inf")).triu(1)[None, None]
    for layer in model.encoder.layers[:num_layers]:
        output = layer(states, mask)
        states = output[0] if isinstance(output, tuple) else output
    return model.final_layer_norm(states)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_without_clip_skip_the_context_is_the_encoder_s_own_output(family, request):
    bundle = request.getfixturevalue(family)
    ids_BKS = ids_of(bundle, 75)
    expected = bundle.text_encoder(ids_BKS[:, 0]).last_hidden_state
    assert torch.equal(contexts(bundle, ids_BKS), expected)
    assert contexts(bundle, ids_BKS).shape == (3, 77, 64)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_counts_layers_from_the_end(sd1, clip_skip):
    ids_BKS = ids_of(sd1, 75)
    expected = layer_output(sd1, ids_BKS[:, 0], num_layers=3 - clip_skip + 1)
    torch.testing.assert_close(contexts(sd1, ids_BKS, clip_skip), expected, rtol=1e-5, atol=1e-6)


def test_clip_skip_1_is_the_same_as_none(sd1):
    ids_BKS = ids_of(sd1, 75)
    assert torch.equal(contexts(sd1, ids_BKS, 1), contexts(sd1, ids_BKS))


def test_clip_skip_is_refused_where_it_does_not_fit(sd1, sd2):
    with pytest.raises(UserError, match="has 3 layers"):
        contexts(sd1, ids_of(sd1, 75), 4)
    with pytest.raises(UserError, match=r"does not go with SD 2\.x"):
        contexts(sd2, ids_of(sd2, 75), 2)


@pytest.mark.parametrize("length", [150, 225])
def test_a_long_caption_is_its_chunks_without_their_inner_ends(sd1, length):
    ids_BKS = ids_of(sd1, length)
    num_chunks = length // 75
    found = contexts(sd1, ids_BKS)
    assert found.shape == (3, length + 2, 64)
    each = [sd1.text_encoder(ids_BKS[:, k]).last_hidden_state for k in range(num_chunks)]
    torch.testing.assert_close(found[:, 0], each[0][:, 0])
    torch.testing.assert_close(found[:, -1], each[-1][:, -1])
    for k in range(num_chunks):
        torch.testing.assert_close(found[:, 1 + 75 * k : 76 + 75 * k], each[k][:, 1:76])


def test_an_sd2_chunk_without_words_adds_no_end_token(sd2):
    ids_BKS = ids_of(sd2, 150, ("a cat",))
    found = contexts(sd2, ids_BKS)
    second = sd2.text_encoder(ids_BKS[:, 1]).last_hidden_state
    assert ids_BKS[0, 1, 1] == sd2.tokenizer.eos_id
    torch.testing.assert_close(found[:, 76], second[:, 2])
    torch.testing.assert_close(found[:, 77], second[:, 2])
    first = sd2.text_encoder(ids_BKS[:, 0]).last_hidden_state
    torch.testing.assert_close(found[:, :76], first[:, :76])


def test_the_saved_names_are_those_of_the_4_x_era_and_come_back(sd1):
    state = text_state_dict(sd1.text_encoder)
    assert all(name.startswith("text_model.") for name in state)
    assert not any("position_ids" in name for name in state)
    own = sd1.text_encoder.state_dict()
    assert state_for(sd1.text_encoder, state).keys() == own.keys()
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    assert state_for(sd1.text_encoder, bare).keys() == own.keys()


@pytest.fixture
def noisy():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([10, 900]), torch.randn(2, 77, 64, generator=generator)


def test_in_float32_the_upcast_attention_is_diffusers_own_to_the_bit(toys, noisy):
    unet = load_bundle(toys["sd2-v"], parts=("unet",)).unet
    set_attention(unet, choose_attention(xformers=False, device="cpu", upcast=False))
    assert {type(p) for p in unet.attn_processors.values()} == {AttnProcessor2_0}
    expected = unet(*noisy).sample
    set_attention(unet, choose_attention(xformers=False, device="cpu", upcast=True))
    assert {type(p) for p in unet.attn_processors.values()} == {UpcastAttention}
    assert torch.equal(unet(*noisy).sample, expected)


def test_scores_beyond_fp16_stay_finite_with_the_upcast_attention():
    from diffusers.models.attention_processor import Attention

    def attention(processor, dtype):
        torch.manual_seed(0)
        layer = Attention(query_dim=64, heads=1, dim_head=64, processor=processor)
        # Scores of about 200 * 200 * 64 are far beyond 65,504.
        layer.to_q.weight.data = layer.to_k.weight.data = torch.eye(64) * 200.0
        return layer.to(dtype)

    states = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = attention(UpcastAttention(), torch.float32)(states)
        half = attention(UpcastAttention(), torch.float16)(states.half())
        with torch.autocast("cpu", dtype=torch.float16):
            mixed = attention(UpcastAttention(), torch.float32)(states)
    assert half.dtype == torch.float16
    for found in (half, mixed):
        assert found.isfinite().all()
        torch.testing.assert_close(found.float(), exact, rtol=0.01, atol=0.01)


def test_what_runs_is_said_in_one_line():
    plain = choose_attention(xformers=False, device="cpu", upcast=False)
    assert plain.words() == "attention: torch's scaled_dot_product_attention"
    asked = choose_attention(xformers=True, device="cpu", upcast=True)
    assert asked.kind == "sdpa"
    assert asked.words() == (
        "attention: torch's scaled_dot_product_attention, in float32 where the rest is in fp16 "
        "(xformers runs on NVIDIA GPUs only)"
    )
