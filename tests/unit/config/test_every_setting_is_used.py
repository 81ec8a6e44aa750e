"""No setting is accepted and ignored: each is read by code that is not about settings."""

import ast
from functools import cache
from pathlib import Path

import pytest

import sdft
from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings

PACKAGE = Path(sdft.__file__).parent

FOLDED = {
    "sdpa": "the property `attention` stands for the flags; torch's own is what is left",
    "xformers": "the property `attention`",
    "mem_eff_attn": "the property `attention`",
    "diffusers_xformers": "folded into xformers when a config is loaded",
    "use_8bit_adam": "folded into optimizer_type when a config is loaded",
    "use_lion_optimizer": "folded into optimizer_type when a config is loaded",
    "masked_loss": "says that conditioning_data_dir holds masks; without it that is refused",
}
"""Settings that nothing below reads by their own name, and why that is right."""

HOLDERS = ("settings", "training", "config", "dataset", "subset", "wishes", "first", "one")
"""What code calls the records of settings; `bundle.vae` is no use of the setting `vae`."""


@cache
def names_read() -> frozenset[str]:
    """Return every attribute that code outside sdft/config reads from a record of settings."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        # Where on this machine work goes is no matter of settings alone.
        if path.is_relative_to(PACKAGE / "config") and path.name != "folders.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                holder = ast.unparse(node.value).rpartition(".")[2].lstrip("_")
                if holder in HOLDERS or holder.startswith("settings"):
                    found.add(node.attr)
    return frozenset(found)


@pytest.mark.parametrize("model", [TrainingSettings, DatasetSettings, SubsetSettings])
def test_every_setting_is_read_by_what_does_the_work(model):
    names = {setting.name for setting in settings_of(model)}
    assert sorted(names - names_read() - FOLDED.keys()) == []


def test_no_reason_stands_for_a_setting_that_is_read():
    names = {setting.name for setting in settings_of(TrainingSettings)}
    assert names >= FOLDED.keys()
    assert sorted(names_read() & FOLDED.keys()) == []
