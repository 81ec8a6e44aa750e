"""A command line as it is shown and written into a run folder: to be copied, with no secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sdft.shell import shell_line

SECRETS = frozenset({"wandb_api_key", "huggingface_token"})
"""Options whose value nobody else may see."""

HIDDEN = "***"


def shown_line(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """Return the words as one line for this system's shell, the home folder written `~`."""
    from sdft.jobs.environment import hide_home

    shown: list[str] = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        is_secret = name.startswith("--") and name[2:].replace("-", "_") in SECRETS
        if hide_next and not word.startswith("--"):
            shown.append(HIDDEN)
        else:
            shown.append(f"{name}={HIDDEN}" if is_secret and equals else word)
        hide_next = is_secret and not equals
    return hide_home(shell_line(shown), environment)
