"""The cache with a real VAE and a real text encoder, both tiny."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.cache.digests import FileDigests
from sdft.cache.encoders import VaeEncoder
from sdft.cache.keys import LatentRecipe, TextRecipe
from sdft.cache.latents import LatentCacheResult, cache_latents
from sdft.cache.pipeline import Picture, encode_pictures
from sdft.cache.shard import decode_values, encode_values
from sdft.cache.store import TensorStore
from sdft.cache.text import cache_contexts
from sdft.dataset.pixels import decode_rgb
from sdft.errors import DataError
from sdft.formats.clip_tokens import ClipTokenizer
from sdft.models.configs import vae_config
from sdft.models.text import encode_chunks
from sdft.models.vae import pixels_from_uint8
from tests.unit.cache.pictures import plan_of, save_picture

RECIPE = LatentRecipe(vae_digest="toy", vae_dtype="fp32", kind="moments", dtype="fp32")
SIZE = (64, 48)


def tiny_vae() -> AutoencoderKL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        config = vae_config(widths=(32, 32, 32, 32), layers_per_block=1, latent_channels=4)
        return AutoencoderKL.from_config(config).eval()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return tiny_vae()


@pytest.fixture(scope="module")
def paths(module_folder: Callable[[str], Path]) -> list[Path]:
    folder = module_folder("images")
    made = [folder / f"{number}.png" for number in range(7)]
    for number, path in enumerate(made):
        save_picture(path, SIZE, seed=number)
    return made


def encode(paths: list[Path], cache: Path, vae: AutoencoderKL, **changes: Any) -> LatentCacheResult:
    arguments: dict[str, Any] = {"recipe": RECIPE, "rules": {}, "max_workers": 2} | changes
    with FileDigests(cache / "digests.sqlite") as digests:
        return cache_latents(
            plan_of(paths),
            store=TensorStore(cache),
            digests=digests,
            load_encoder=lambda: VaeEncoder(vae),
            **arguments,
        )


def stored(result: LatentCacheResult) -> list[bytes]:
    store = TensorStore(result.cache)
    return [store.read(keys.plain or "").tobytes() for keys in result.keys]


def test_the_moments_are_those_of_diffusers_own_encoder(
    vae: AutoencoderKL, paths: list[Path], tmp_path: Path
) -> None:
    result = encode(paths[:2], tmp_path, vae)
    store = TensorStore(tmp_path)
    for path, keys in zip(paths, result.keys, strict=False):
        with torch.no_grad():
            posterior = vae.encode(pixels_from_uint8(np.array(decode_rgb(path)))).latent_dist
        expected = torch.cat([posterior.mean, posterior.logvar], dim=1)[0].numpy()
        np.testing.assert_array_equal(store.read(keys.plain or ""), expected)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", ["moments", "sample"])
def test_a_cache_filled_in_several_goes_equals_one_filled_in_one(
    vae: AutoencoderKL, paths: list[Path], tmp_path: Path, batch_size: int, kind: str
) -> None:
    changes = {"vae_batch_size": batch_size, "recipe": replace(RECIPE, kind=kind)}
    whole = encode(paths, tmp_path / "whole", vae, **changes)
    encode(paths[4:5], tmp_path / "parts", vae, **changes)
    encode(paths[1:6], tmp_path / "parts", vae, **changes)
    parts = encode(paths, tmp_path / "parts", vae, **changes)
    assert parts.encoded == 2
    assert stored(parts) == stored(whole)


def test_a_picture_comes_out_the_same_beside_any_others(vae: AutoencoderKL) -> None:
    rgb_NHWC = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), dtype=np.uint8)
    pictures = [
        Picture(number=number, key=str(number), path=Path(), rgb_HWC=rgb_HWC)
        for number, rgb_HWC in enumerate(rgb_NHWC)
    ]
    submit = VaeEncoder(vae).submit
    forward = encode_pictures(pictures, submit, batch_size=4)
    backward = encode_pictures(pictures[::-1], submit, batch_size=4)
    found = [{one.number: moments.tobytes() for one, moments in go} for go in (forward, backward)]
    assert found[0] == found[1]


def test_weights_that_are_not_finite_are_named_as_the_cause(
    paths: list[Path], tmp_path: Path
) -> None:
    broken = tiny_vae()
    with torch.no_grad():
        broken.encoder.conv_in.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match=r"0\.png.*own weights are not finite \(encoder\.conv_in"):
        encode(paths, tmp_path, broken)


def test_an_overflow_in_half_precision_is_named_as_the_cause(
    paths: list[Path], tmp_path: Path
) -> None:
    overflowing = tiny_vae()
    with torch.no_grad():
        overflowing.encoder.conv_in.weight *= 3e5
    with pytest.raises(DataError, match=r"overflows in fp16[\s\S]*no_half_vae"):
        encode(paths, tmp_path, overflowing.half())


def test_bfloat16_is_written_as_torch_writes_it() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    ours = encode_values(values, "bf16")
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    np.testing.assert_array_equal(ours.view(np.int16), theirs.view(torch.int16).numpy())
    np.testing.assert_array_equal(decode_values(ours, "BF16"), theirs.float().numpy())


class SmallVocabulary:
    """Token numbers below 100 from the letters of a text, in chunks like CLIP's."""

    padding = "eos"
    eos_id = 99

    def chunks(self, text: str, max_token_length: int) -> list[list[int]]:
        words = [ord(letter) % 90 for letter in text][:max_token_length]
        words += [self.eos_id] * (max_token_length - len(words))
        return [[98, *words[start : start + 75], 99] for start in range(0, max_token_length, 75)]


@pytest.mark.parametrize(("max_token_length", "num_tokens"), [(75, 77), (150, 152)])
def test_contexts_are_those_of_the_live_encoder_beside_any_others(
    tmp_path: Path, max_token_length: int, num_tokens: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=100,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=2,
                bos_token_id=98,
                eos_token_id=99,
            )
        )
    tokenizer = SmallVocabulary()

    @torch.no_grad()
    def encoder(texts: Sequence[str]) -> np.ndarray:
        ids_BKS = torch.tensor([tokenizer.chunks(text, max_token_length) for text in texts])
        contexts_BSD = encode_chunks(
            text_encoder.eval(), ids_BKS, clip_skip=2, tokenizer=cast(ClipTokenizer, tokenizer)
        )
        return contexts_BSD.numpy()

    recipe = TextRecipe(
        encoder_digest="toy",
        encoder_dtype="fp32",
        clip_skip=2,
        max_token_length=max_token_length,
        weighted=False,
        padding="eos",
        dtype="fp32",
    )
    texts = [f"caption number {number}" for number in range(5)]
    store = TensorStore(tmp_path)
    for part in (texts[3:4], texts):
        result = cache_contexts(
            part, store=store, recipe=recipe, load_encoder=lambda: encoder, batch_size=3
        )
    assert (result.encoded, result.reused) == (4, 1)
    for text in texts:
        expected = encoder([text, texts[0], texts[0]])[0]
        assert expected.shape == (num_tokens, 32)
        np.testing.assert_array_equal(store.read(result.keys[text]), expected)


def test_the_torch_free_numbers_are_those_of_the_models() -> None:
    from sdft.cache import keys
    from sdft.models import vae as models_vae

    assert keys.LATENT_CHANNELS == models_vae.LATENT_CHANNELS
    assert keys.PIXELS_PER_CELL == models_vae.PIXELS_PER_CELL
