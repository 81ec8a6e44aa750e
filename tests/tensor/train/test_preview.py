"""Drawing pictures, against diffusers' own pipeline on the same weights."""

import random

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from transformers import CLIPTokenizer

from sdft.config.choices import SAMPLERS as NAMES
from sdft.jobs.training.drawing import Drawer
from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks
from sdft.train.preview import SAMPLERS, SampleRequest, draw_latents
from sdft.train.samplers import build_scheduler
from tests.toy_model import save_toy_model

CPU = torch.device("cpu")

PUBLISHED = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
"""scheduler/scheduler_config.json of the published SD 1.5 folder."""


@pytest.fixture(scope="module", params=["sd1", "sd2-v"])
def model(request, module_folder):
    folder = module_folder(request.param) / "model"
    save_toy_model(folder, seed=3, family=request.param)
    return folder


@pytest.fixture(scope="module")
def bundle(model):
    return load_bundle(model)


@pytest.fixture(scope="module")
def pipeline(model, bundle):
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    scheduler = PNDMScheduler.from_config(PUBLISHED | {"prediction_type": bundle.prediction_type})
    made = StableDiffusionPipeline(
        vae=bundle.vae,
        text_encoder=bundle.text_encoder,
        tokenizer=tokenizer,
        unet=bundle.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made, made.scheduler.config


def drawer_of(bundle, **changes):
    values = {"clip_skip": None, "max_token_length": 75, "device": CPU}
    return Drawer.of_bundle(bundle, **(values | changes))


def theirs(pipeline, name, request):
    """Draw with the pipeline and the scheduler that its own configuration gives."""
    target = SAMPLERS.get(name)
    kind = LMSDiscreteScheduler if issubclass(target, LMSDiscreteScheduler) else target
    more = {}
    if name == "dpmsolver":
        more = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    pipeline, published = pipeline
    pipeline.scheduler = kind.from_config(published, **more)
    return pipeline(
        request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="np",
    ).images[0]


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not name.startswith("k_")])
@pytest.mark.filterwarnings("ignore:.*dpmsolver.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*(copy keyword|__array_wrap__).*:DeprecationWarning")
def test_a_picture_is_the_one_that_the_pipeline_draws(name, bundle, pipeline):
    request = SampleRequest(
        prompt="a red circle, on grass",
        negative_prompt="blurry",
        width=136,
        height=128,
        seed=11,
        steps=5,
        scale=4.0,
        sampler=name,
    )
    ours = drawer_of(bundle).draw(request).astype(int)
    expected = (theirs(pipeline, name, request) * 255).round().astype(int)
    assert ours.shape == (128, 136, 3)
    assert ours.std() > 5, "a flat picture proves nothing"
    assert np.abs(ours - expected).max() <= 1


@pytest.mark.parametrize("name", ["ddim", "euler_a", "dpmsolver++"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_picture_is_the_same_alone_and_beside_others(name, scale, bundle):
    drawer = drawer_of(bundle)
    common = {"width": 72, "height": 64, "steps": 5, "scale": scale, "sampler": name}
    requests = [
        SampleRequest(prompt="a red circle", negative_prompt="blurry", seed=11, **common),
        SampleRequest(prompt="two squares", seed=12, **common),
        SampleRequest(prompt="two squares", seed=11, **common),
    ]
    together = drawer.draw_together(requests).astype(int)
    alone = np.stack([drawer.draw(request) for request in requests]).astype(int)
    assert together.shape == (3, 64, 72, 3)
    assert np.abs(together - alone).max() <= 1
    apart = [np.abs(alone[one] - alone[other]).max() for one, other in ((0, 1), (1, 2), (0, 2))]
    assert min(apart) > 2, "equal pictures prove nothing"


def test_the_names_of_the_settings_are_the_names_of_the_samplers():
    assert tuple(SAMPLERS) == NAMES


def test_the_names_with_k_mean_the_same_as_those_without():
    aliases = [name for name in SAMPLERS if name.startswith("k_")]
    assert len(aliases) == 5
    assert all(SAMPLERS.target(name) == SAMPLERS.target(name[2:]) for name in aliases)


def test_a_long_prompt_is_read_as_a_long_caption_is(bundle):
    words = ", ".join(f"thing number {number}" for number in range(60))
    drawer = drawer_of(bundle, max_token_length=225)
    ids_1KS = torch.tensor([bundle.tokenizer.chunks(words, 225)])
    assert ids_1KS.shape == (1, 3, 77)
    with torch.no_grad():
        expected = encode_chunks(
            bundle.text_encoder, ids_1KS, clip_skip=None, tokenizer=bundle.tokenizer
        )
    assert torch.equal(drawer.contexts_of(words), expected)
    assert drawer.contexts_of("short").shape == expected.shape


@pytest.mark.parametrize("name", ["euler_a", "dpm_2_a", "ddim"])
def test_drawing_leaves_every_generator_as_it_was(name, bundle):
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    request = SampleRequest(prompt="x", width=128, height=128, steps=2, sampler=name)
    first = drawer_of(bundle).draw(request)
    torch.rand(3)
    torch.set_rng_state(before[0])
    second = drawer_of(bundle).draw(request)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert (first == second).all()


def test_latents_are_never_clamped(bundle):
    request = SampleRequest(prompt="x", width=128, height=128, steps=3, scale=1.0)
    drawer = drawer_of(bundle)
    latents_BCHW = draw_latents(
        [request],
        # A network that finds no noise at all: what is left is the start, divided by the signal.
        unet=Silent(),
        contexts_of=drawer.contexts_of,
        prediction_type="epsilon",
        zero_terminal_snr=False,
        device=CPU,
    )
    assert latents_BCHW.abs().max() > 5


class Silent:
    dtype = torch.float32

    def __call__(self, latents_BCHW, timestep, contexts_BSD, return_dict):
        return (torch.zeros_like(latents_BCHW),)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_zero_terminal_schedule_is_drawn_from_its_very_end(name):
    scheduler = build_scheduler(
        name,
        num_steps=6,
        prediction_type="v_prediction",
        zero_terminal_snr=True,
        device=CPU,
    )
    assert float(scheduler.timesteps[0]) == pytest.approx(999, abs=1)
    assert scheduler.alphas_cumprod[-1] < 1e-6
    latents_BCHW = torch.randn(1, 4, 8, 8) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled_BCHW = scheduler.scale_model_input(latents_BCHW, timestep)
        latents_BCHW = scheduler.step(scaled_BCHW * 0.1, timestep, latents_BCHW).prev_sample
    assert torch.isfinite(latents_BCHW).all()
