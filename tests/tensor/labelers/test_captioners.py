"""Captioners of the real classes: batches beside single images, sampling, phrases, bad folders."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BlipForConditionalGeneration, GitForCausalLM
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sdft.errors import DataError, UserError
from sdft.labelers.captioners import kind_of, open_captioner
from sdft.labelers.captions import CaptionChoice, PerImageNucleus, nucleus
from sdft.labelers.git import without_phrases
from sdft.labelers.records import Prepared
from tests.tensor.labelers.tiny_captioners import SAVERS

GREEDY = CaptionChoice(beam_search=True, max_length=24)
BEAM = CaptionChoice(beam_search=True, num_beams=3, max_length=24)
NUCLEUS = CaptionChoice(max_length=24)


@pytest.fixture(scope="module")
def folders(module_folder):
    root = module_folder("captioners")
    return {name: save(root / name) for name, save in SAVERS.items()}


def pictures(num=5):
    draw = np.random.default_rng(4)
    shapes = [(40 + 9 * n, 60, 3) for n in range(num)]
    return [
        draw.integers(0, 256, shape, dtype=np.uint8) // np.uint8(1 + n % 3 * 3)
        for n, shape in enumerate(shapes)
    ]


def prepared(captioner, num=5):
    return [
        Prepared(key=f"{n}.png", pixels=captioner.prepare(rgb))
        for n, rgb in enumerate(pictures(num))
    ]


@pytest.mark.parametrize("choice", [GREEDY, BEAM, NUCLEUS], ids=["greedy", "beam", "nucleus"])
@pytest.mark.parametrize("name", list(SAVERS))
def test_a_batch_says_what_each_image_says_alone(folders, name, choice):
    captioner, _ = open_captioner(folders[name], choice, device="cpu")
    images = prepared(captioner)
    together = captioner.label(images)
    assert together == [captioner.label([image])[0] for image in images]
    assert captioner.label(images[::-1]) == together[::-1]
    assert len(set(together)) > 1


@pytest.mark.parametrize("name", list(SAVERS))
def test_nucleus_sampling_depends_on_the_seed_and_the_image_s_name(folders, name):
    said = []
    for seed in (1, 2):
        choice = CaptionChoice(seed=seed, max_length=24)
        captioner, _ = open_captioner(folders[name], choice, device="cpu")
        said.append(captioner.label(prepared(captioner)))
        pixels = captioner.prepare(pictures(1)[0])
        twice = [Prepared(key=key, pixels=pixels) for key in ("a.png", "b.png", "c.png", "a.png")]
        repeated = captioner.label(twice)
        assert repeated[0] == repeated[3]
        assert len(set(repeated)) > 1
    assert said[0] != said[1]


def test_the_nucleus_is_the_smallest_set_that_reaches_its_mass():
    scores = torch.log(torch.tensor([[0.1, 0.5, 0.3, 0.06, 0.04], [0.2, 0.2, 0.2, 0.2, 0.2]]))
    kept = nucleus(scores, 0.75).isfinite()
    assert kept.tolist() == [[False, True, True, False, False], [True, True, True, True, False]]
    assert nucleus(scores, 0.0).isfinite().sum(dim=1).tolist() == [1, 1]
    assert nucleus(scores, 1.0).isfinite().all()


def test_noisy_greedy_choices_are_draws_from_the_nucleus():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    num_draws = 20_000
    processor = PerImageNucleus([str(n) for n in range(num_draws)], 7, 0.9)
    scores = torch.log(probabilities).repeat(num_draws, 1)
    drawn = processor(torch.zeros(1), scores).argmax(dim=1)
    shares = torch.bincount(drawn, minlength=4) / num_draws
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    # Four standard deviations of a share drawn so often.
    assert (shares - wanted).abs().max() < 4 * (0.25 / num_draws) ** 0.5
    assert shares[3] == 0


def test_blip_sees_and_says_what_transformers_own_parts_do(folders):
    folder = folders["blip"]
    captioner, _ = open_captioner(folder, GREEDY, device="cpu")
    images = prepared(captioner, 3)
    processor = BlipImageProcessorPil.from_pretrained(folder)
    seen = processor(images=[Image.fromarray(rgb) for rgb in pictures(3)], return_tensors="pt")
    torch.testing.assert_close(
        captioner.model_input(images), seen["pixel_values"], rtol=0, atol=1e-6
    )
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(["a picture of "] * 3, return_tensors="pt").input_ids
    with torch.no_grad():
        ids = model.generate(**seen, input_ids=prompt, max_length=24, min_length=5, num_beams=1)
    said = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert all(text.startswith("a picture of") for text in said)
    wanted = [(text.removeprefix("a picture of").strip(),) for text in said]
    assert captioner.label(images) == wanted


def test_git_sees_what_transformers_own_processor_makes(folders):
    captioner, _ = open_captioner(folders["git"], GREEDY, device="cpu")
    processor = CLIPImageProcessorPil.from_pretrained(folders["git"])
    seen = processor(images=[Image.fromarray(rgb) for rgb in pictures(3)], return_tensors="pt")
    images = prepared(captioner, 3)
    torch.testing.assert_close(
        captioner.model_input(images), seen["pixel_values"], rtol=0, atol=1e-6
    )
    model = GitForCausalLM.from_pretrained(folders["git"]).eval()
    with torch.no_grad():
        ids = model.generate(pixel_values=seen["pixel_values"], max_length=24, num_beams=1)
    tokenizer = AutoTokenizer.from_pretrained(folders["git"])
    said = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert captioner.label(images) == [(" ".join(text.split()),) for text in said]


def test_a_prompt_changes_what_is_said(folders):
    for name in SAVERS:
        said = []
        for prompt in ("a red cat", "two girl standing near the tree"):
            choice = CaptionChoice(beam_search=True, max_length=24, prompt=prompt)
            captioner, _ = open_captioner(folders[name], choice, device="cpu")
            said.append(captioner.label(prepared(captioner)))
        assert said[0] != said[1], name


def test_lengths_are_kept(folders):
    choice = CaptionChoice(beam_search=True, max_length=12, min_length=12)
    captioner, _ = open_captioner(folders["blip"], choice, device="cpu")
    # 12 tokens, 4 of them the start and the prompt; "##s" joins the word before it.
    assert all(len(text.split()) <= 8 for (text,) in captioner.label(prepared(captioner)))


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ('a man with the words "hello there" on the shirt', "a man"),
        ("a book with the word happy on it", "a book"),
        ('a sign that says "no parking"', "a sign"),
        ("a man with a sign that says stop on it", "a man"),
        ("a man with a sign that says 'i'm here'", "a man"),
        ("a player with the number 12 on it", "a player"),
        ("a player with the number 7 on his shirt, running", "a player, running"),
        ('a poster with the words "never ending', "a poster never ending"),
        ("a shirt that says the word love on it", "a shirt"),
        ("a cup has the letters abc on the side", "a cup"),
        ("a dog and the name rex on his collar", "a dog"),
        ("a dog on the grass", "a dog on the grass"),
        ("a swordsman on it", "a swordsman on it"),
    ],
)
def test_phrases_about_writing_are_taken_out(caption, cleaned):
    assert without_phrases(caption) == cleaned


def test_the_kind_of_a_folder_is_read_from_its_config(folders, tmp_path):
    kinds = {name: kind_of(folder) for name, folder in folders.items()}
    special = {"blip": "blip", "git": "git"}
    assert kinds == {name: special.get(name, "general") for name in SAVERS}
    with pytest.raises(DataError, match=r"config\.json is missing"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="not a model's config"):
        kind_of(tmp_path)
    with pytest.raises(UserError, match="not single files"):
        kind_of(tmp_path / "config.json")


@pytest.mark.parametrize("name", list(SAVERS))
def test_missing_weights_are_an_error_and_not_random_numbers(folders, name, tmp_path):
    folder = shutil.copytree(folders[name], tmp_path / name)
    weights = load_file(folder / "model.safetensors")
    dropped = sorted(key for key in weights if "attn" in key or "attention" in key)[0]
    del weights[dropped]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="weights are missing"):
        open_captioner(folder, GREEDY, device="cpu")


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_is_named(folders, lost, tmp_path):
    folder = shutil.copytree(folders["blip"], tmp_path / "blip")
    (folder / lost).unlink()
    with pytest.raises(DataError, match=str(folder)):
        open_captioner(folder, GREEDY, device="cpu")


def test_a_model_that_is_no_captioner_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    with pytest.raises(DataError, match="cannot load this folder"):
        open_captioner(tmp_path, GREEDY, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            open_captioner(tmp_path, GREEDY, device="cuda")
