"""What both halves of the tiny model's recipe stand on: pictures, state on disk, steps, rates.

B batch, C latent channels, H W latent height and width, S tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdft.formats.clip_tokens import ClipTokenizer
from sdft.models.bundle import load_bundle
from sdft.models.tiny.drawing import DISTANCES, draw
from sdft.models.tiny.networks import new_networks
from sdft.models.tiny.scenes import caption_of, draw_scene
from tests.recipes.muon import begin_apart, begin_passing_through
from tests.recipes.nameless import OtherWords, nameless_scenes, outlines

SAVE_EVERY_S = 30.0
CPU_SHARE = 8
"""A CPU takes batches so many times smaller."""
WARM_UP = 200
RESUME_STRIDE = 1009


class Pictures:
    """Scenes with their captions, drawn once and kept on the device."""

    def __init__(
        self, number: int, *, nameless: int = 0, seed: int, side_px: int, device: torch.device
    ) -> None:
        scenes = [draw_scene(seed, index) for index in range(number)]
        captions = [caption_of(scene, seed, index) for index, scene in enumerate(scenes)]
        self.other_words = OtherWords(set(captions), device)
        more_scenes, more_captions = nameless_scenes(nameless, seed)
        scenes += more_scenes
        captions += more_captions
        distances = {**DISTANCES, **outlines(seed)}
        parts = [
            draw(
                scenes[start : start + 500],
                width=side_px,
                height=side_px,
                device=device,
                distances=distances,
            )
            for start in range(0, len(scenes), 500)
        ]
        self.rgb_N3HW = torch.cat(parts)
        tokenizer = ClipTokenizer("eos")
        known = {text: tokenizer.chunks(text, 75)[0] for text in {"", *captions}}
        self.ids_NS = torch.tensor([known[text] for text in captions], device=device)
        self.nameless_ids_NS = self.ids_NS[number:]
        self.empty_S = torch.tensor(known[""], device=device)

    def __len__(self) -> int:
        return len(self.rgb_N3HW)


class Recipe:
    """Holds everything, says how it goes, saves what there is."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.out: Path = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.hold: Path | None = arguments.hold
        self.state: dict[str, Any] = {"stage": "vae", "step": 0, "spent_s": 0.0, "began_s": 0.0}
        if arguments.resume:
            self.state = torch.load(self.out / "state.pt", map_location=self.device)
        # Resumed steps draw other numbers than the steps before them.
        torch.manual_seed(arguments.seed + RESUME_STRIDE * self.state["step"])
        self.started_s = time.monotonic() - self.state["spent_s"]
        self.deadline_s = self.started_s + arguments.seconds
        self.networks = {name: one.to(self.device).train() for name, one in new_networks().items()}
        for name in ("vae", "unet"):
            begin_passing_through(self.networks[name])
        begin_apart(self.networks["text_encoder"])
        if arguments.start is not None:
            found = load_bundle(arguments.start, device=self.device, parts=("vae", "unet"))
            for name, network in found.networks.items():
                self.networks[name].load_state_dict(network.state_dict())
                self.save(name, network.state_dict())
            self.state["stage"] = "unet"
        for name, weights in self.state.get("networks", {}).items():
            self.networks[name].load_state_dict(weights)
        self.saved_s = time.monotonic()

    def log(self, **figures: Any) -> None:
        line = json.dumps({"s": round(time.monotonic() - self.started_s, 1), **figures})
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a", encoding="ascii") as lines:
            lines.write(line + "\n")

    def wait_while_held(self) -> None:
        while self.hold is not None and self.hold.exists():
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            time.sleep(0.05)

    def is_over(self) -> bool:
        return time.monotonic() > self.deadline_s

    def is_time_to_save(self) -> bool:
        if time.monotonic() - self.saved_s < SAVE_EVERY_S:
            return False
        self.saved_s = time.monotonic()
        return True

    def save_state(self, stage: str, step: int, began_s: float, **more: Any) -> None:
        """Write what a resumed training needs, whole or not at all."""
        networks = {name: one.state_dict() for name, one in self.networks.items()}
        spent_s = time.monotonic() - self.started_s
        figures = {"stage": stage, "step": step, "spent_s": spent_s, "began_s": began_s}
        part = self.out / "state.part"
        torch.save({**figures, "networks": networks, **more}, part)
        part.replace(self.out / "state.pt")

    def save(self, name: str, weights: dict[str, Tensor]) -> None:
        plain = {key: one.detach().float().cpu().contiguous() for key, one in weights.items()}
        save_file(plain, self.out / f"{name}.safetensors")


def stepping(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Return the step as one CUDA graph where there is a GPU; it gives the same tensor each time.

    The step may read nothing from the device and must use the same tensors every time.
    """
    if device.type != "cuda":
        return step
    side: Any = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            loss = step()
    except RuntimeError as error:
        print(f"no CUDA graph, so steps take longer: {error}", flush=True)
        return step

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def rate_at(step: int, share: float, top: float) -> float:
    """Rise over the first steps, then fall as a cosine; `share` of the training is done."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return top * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, share))) + 1e-6


def autocast(device: torch.device, *, is_large: bool) -> Any:
    """Return the context of bfloat16 where it is faster: on a CPU only large layers gain by it."""
    on_cpu = is_large and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # A graph may keep no casts from outside of it.
    return torch.autocast(
        device.type,
        torch.bfloat16,
        enabled=on_cpu if device.type == "cpu" else True,
        cache_enabled=False,
    )


def pictures_of(
    recipe: Recipe, number: int, seed: int, side_px: int, *, nameless: int = 0
) -> Pictures:
    return Pictures(number, nameless=nameless, seed=seed, side_px=side_px, device=recipe.device)
