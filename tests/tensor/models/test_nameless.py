"""The recipe's things without a name: what they look like, and which words are put for them."""

from __future__ import annotations

import pytest
import torch

from sdft.formats.clip_tokens import BOS_ID, EOS_ID, VOCABULARY_SIZE, ClipTokenizer
from sdft.models.tiny.checker import look_at
from sdft.models.tiny.drawing import draw
from sdft.models.tiny.scenes import NEW_SHAPES, SHAPES, caption_of, draw_scene
from tests.recipes.nameless import WORD, OtherWords, nameless_scenes, outlines
from tests.recipes.tiny_unet import APART, CONTEXT_NOISE, loss_of_other_words, shaken

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes_and_captions():
    return nameless_scenes(400, 0)


@pytest.fixture(scope="module")
def other_words():
    return OtherWords({caption_of(draw_scene(0, index), 0, index) for index in range(300)}, CPU)


def test_they_are_of_many_kinds_and_never_what_the_demo_teaches(scenes_and_captions):
    scenes, _ = scenes_and_captions
    rgb_N3HW = draw(scenes, width=64, height=64, device=CPU, distances=outlines(0))
    seen = [look_at(rgb_3HW.permute(1, 2, 0).numpy()).shape for rgb_3HW in rgb_N3HW]
    assert len(set(seen)) >= 4
    assert not {*NEW_SHAPES, "ring"} & set(seen)


def test_their_captions_say_the_one_word(scenes_and_captions):
    scenes, captions = scenes_and_captions
    assert all(WORD in caption for caption in captions)
    assert not any(scene.shape in caption for scene, caption in zip(scenes, captions, strict=True))
    assert nameless_scenes(400, 0) == scenes_and_captions
    assert nameless_scenes(400, 1) != scenes_and_captions


def test_another_word_takes_its_place_each_time_and_nothing_else_changes(other_words):
    tokenizer = ClipTokenizer("eos")
    ids_BS = torch.tensor(
        [tokenizer.chunks(text, 75)[0] for text in ("a red thing", "three things", "a red ring")]
        * 200
    )
    put_BS = other_words.put_into(ids_BS)
    changed_BS = put_BS != ids_BS
    assert changed_BS.sum(dim=1).tolist() == [1, 1, 0] * 200
    words = put_BS[changed_BS]
    assert len(words.unique()) > 350
    assert (words >= 0).all()
    assert (words < VOCABULARY_SIZE).all()
    assert not other_words.is_known_V1[words].any()
    assert not torch.equal(put_BS, other_words.put_into(ids_BS))


def test_words_of_the_world_and_the_new_one_are_known(other_words):
    tokenizer = ClipTokenizer("eos")
    ids = [token for word in (*SHAPES, *NEW_SHAPES, "red", "a") for token in tokenizer.encode(word)]
    assert other_words.is_known_V1[[BOS_ID, EOS_ID, *ids]].all()
    assert not other_words.is_known_V1[tokenizer.encode(f"{WORD} {WORD}s zebra")].any()


def test_the_noise_is_a_share_of_the_contexts_and_differs_between_captions():
    torch.manual_seed(0)
    contexts_BSD = 3 * torch.randn(64, 77, 32)
    noise_BSD = shaken(contexts_BSD) - contexts_BSD
    size_B = noise_BSD.square().mean(dim=(1, 2)).sqrt() / 3
    assert 0 < size_B.min() < 0.1 * CONTEXT_NOISE < 0.8 * CONTEXT_NOISE < size_B.max()
    assert size_B.max() < 1.4 * CONTEXT_NOISE
    shared_BD = noise_BSD.mean(dim=1)
    share_B = shared_BD.square().mean(dim=1).sqrt() / 3 / size_B
    assert share_B.mean() == pytest.approx(0.5**0.5, rel=0.1)


def test_other_words_are_to_lie_in_the_middle_of_the_shapes_and_apart():
    torch.manual_seed(0)
    middle_BSD = 3 * torch.randn(2, 77, 32)
    off_KBSD = torch.randn(6, 2, 77, 32)
    off_KBSD -= off_KBSD.mean(dim=0)
    known_KBSD = middle_BSD + off_KBSD
    # As far from the middle as the wish is, on either side of it: two draws of that spread differ
    # by the root of 2, these by twice.
    away_BSD = APART / 2**0.5 * off_KBSD.square().mean().sqrt() * torch.randn(2, 77, 32).sign()

    def loss(one_BSD, another_BSD):
        return float(loss_of_other_words(known_KBSD, one_BSD, another_BSD))

    fulfilled = loss(middle_BSD + away_BSD, middle_BSD - away_BSD)
    assert fulfilled == pytest.approx(0, abs=1e-6)
    assert loss(middle_BSD, middle_BSD) > 0.05
    assert loss(middle_BSD + away_BSD / 2, middle_BSD - away_BSD / 2) > 0.01
    shape_BSD = known_KBSD[0]
    assert loss(shape_BSD + away_BSD, shape_BSD - away_BSD) > 0.01
