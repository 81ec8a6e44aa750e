"""All training settings in one frozen record.

The declarations stand in `training_basics`, `training_machine`, `training_objective`,
`training_validation`, `training_safety`, `training_output`, `training_network` and `training_hub`;
settings of images and captions stand in `dataset`, those that are refused in `refused`.
"""

from __future__ import annotations

from typing import Literal

from sdft.config.training_basics import BasicSettings
from sdft.config.training_hub import HubSettings
from sdft.config.training_machine import MachineSettings
from sdft.config.training_network import NetworkSettings
from sdft.config.training_objective import ObjectiveSettings
from sdft.config.training_output import OutputSettings
from sdft.config.training_safety import SafetySettings
from sdft.config.training_validation import ValidationSettings


# pydantic collects fields from the last base to the first: the settings of the model come first.
class TrainingSettings(
    HubSettings,
    NetworkSettings,
    OutputSettings,
    SafetySettings,
    ValidationSettings,
    ObjectiveSettings,
    MachineSettings,
    BasicSettings,
    frozen=True,
    extra="forbid",
    allow_inf_nan=False,
    defer_build=True,
):
    """Every training setting that is supported, by sd-scripts' names."""

    @property
    def attention(self) -> Literal["sdpa", "xformers", "mem_eff"]:
        """The attention that was asked for; torch's own where nothing was."""
        if self.mem_eff_attn:
            return "mem_eff"
        return "xformers" if self.xformers or self.diffusers_xformers else "sdpa"
