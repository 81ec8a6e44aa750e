"""The planned memory of a rig, to be held against what it takes."""

from __future__ import annotations

from sdft.jobs.benching.rig import Rig
from sdft.jobs.planning.asking import PlannedModel, Shape, Use, memory_question
from sdft.models.published import ModelSizes, published_sizes
from sdft.models.sizes import TextSizes, UNetSizes
from sdft.models.text import text_state_dict
from sdft.planning.memory import plan_memory


def planned_bytes(rig: Rig, *, batch_size: int, side_px: int) -> int:
    """Return the peak that is planned for the rig's own networks, its text encoder parked."""
    bundle = rig.networks.bundle
    shapes = {
        part: {name: tuple(one.shape) for name, one in state.items()}
        for part, state in (
            ("unet", bundle.unet.state_dict()),
            ("text_encoder", text_state_dict(bundle.text_encoder)),
        )
    }
    sizes = ModelSizes(
        unet=UNetSizes.of(shapes["unet"]),
        vae=published_sizes("sd1").vae,
        text_encoder=TextSizes.of(shapes["text_encoder"]),
    )
    question = memory_question(
        rig.settings,
        PlannedModel(family=bundle.family, sizes=sizes),
        Use(
            on_gpu=rig.networks.accelerator.device.type == "cuda",
            reads_words=False,
            encodes_images=False,
        ),
        Shape(side_px, side_px, batch_size),
    )
    assert question is not None, "an optimizer that the plan knows, and no hypernetwork"
    return plan_memory(question).peak_bytes
