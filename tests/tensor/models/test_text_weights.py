"""Contexts of weighted words: what counts more counts more, and the mean stays."""

from __future__ import annotations

import pytest
import torch

from sdft.formats.caption_reader import CaptionReader
from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks, inner_model
from sdft.models.text_weights import flat_weights, weighted_contexts


@pytest.fixture(scope="module", params=["sd1", "sd2-base"])
def bundle(toys, request):
    bundle = load_bundle(toys[request.param])
    # A mean like that of the published encoders; with fresh weights it is 0.
    torch.nn.init.constant_(inner_model(bundle.text_encoder).final_layer_norm.bias, 0.1)
    return bundle


def contexts(bundle, captions, length):
    reader = CaptionReader(tokenizer=bundle.tokenizer, max_token_length=length, weighted=True)
    read = [reader.read(caption) for caption in captions]
    with torch.no_grad():
        plain = encode_chunks(
            bundle.text_encoder,
            torch.tensor([one.ids_KS for one in read]),
            clip_skip=None,
            tokenizer=bundle.tokenizer,
        )
    return plain, torch.tensor([one.weights_KS for one in read])


def by_hand(plain_SD, weights):
    """The reference's steps for one caption, one token at a time."""
    weighted = torch.stack(
        [token * weight for token, weight in zip(plain_SD, weights, strict=True)]
    )
    return weighted * (plain_SD.mean() / weighted.mean())


@pytest.mark.parametrize("length", [75, 150, 225])
def test_each_token_is_weighed_and_the_captions_mean_is_kept(bundle, length):
    captions = ["a (red:1.5) [car]", "no weights here", "word " * 80 + "(last words:0.5)"]
    plain, weights = contexts(bundle, captions, length)
    found = weighted_contexts(plain, weights)
    num_tokens = length + 2
    assert found.shape == plain.shape
    assert torch.equal(found[1], plain[1])
    first = [1.0, 1.0, 1.5, 1 / 1.1, *[1.0] * (num_tokens - 4)]
    torch.testing.assert_close(found[0], by_hand(plain[0], first), rtol=1e-5, atol=1e-6)
    third = [1.0] * 81 + [0.5] * 2 + [1.0] * (num_tokens - 83) if length > 75 else None
    if third is None:
        assert torch.equal(found[2], plain[2])
    else:
        torch.testing.assert_close(found[2], by_hand(plain[2], third), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.mean(dim=(1, 2)), plain.mean(dim=(1, 2)))


def test_weights_follow_the_tokens_of_a_context(bundle):
    weights_BKS = torch.arange(2 * 3 * 77.0).reshape(2, 3, 77)
    flat = flat_weights(weights_BKS)
    assert flat.shape == (2, 227)
    assert flat[0, 0] == 0
    assert flat[0, 76] == weights_BKS[0, 1, 1]
    assert flat[0, -1] == weights_BKS[0, 2, -1]


def test_a_mean_of_nearly_nothing_is_left_alone():
    contexts_BSD = torch.tensor([[[1.0, -1.0], [2.0, -2.0 + 1e-7]] + [[0.0, 0.0]] * 75])
    weights_BKS = torch.ones(1, 1, 77)
    weights_BKS[0, 0, 1] = 1.5
    found = weighted_contexts(contexts_BSD, weights_BKS)
    assert found[0, 1].tolist() == pytest.approx([3.0, -3.0])
    assert found[0, 0].tolist() == [1.0, -1.0]


def test_gradients_flow_and_the_dtype_stays():
    contexts_BSD = torch.randn(1, 77, 8, dtype=torch.bfloat16, requires_grad=True)
    weights_BKS = torch.ones(1, 1, 77)
    weights_BKS[0, 0, 3] = 2.0
    found = weighted_contexts(contexts_BSD, weights_BKS)
    found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    assert torch.isfinite(contexts_BSD.grad).all()
