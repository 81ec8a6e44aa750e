"""Toy models, made once for all tests of a process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.toy_model import save_toy_model


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return a diffusers folder of each family. Not to be written to."""
    folder = tmp_path_factory.mktemp("toys")
    families = ("sd1", "sd2-base", "sd2-v")
    for number, family in enumerate(families):
        save_toy_model(folder / family, seed=number, family=family)
    return {family: folder / family for family in families}
