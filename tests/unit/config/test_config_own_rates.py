"""Settings that an optimizer does not look at are named, not ignored in silence."""

from __future__ import annotations

import pytest

from sdft.config.own_rates import unread_rates
from sdft.config.training import TrainingSettings


def unread(**settings):
    return [name for name, _ in unread_rates(TrainingSettings.model_validate(settings))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimizer_type": "AdamW", "lr_scheduler": "cosine", "learning_rate": 1e-5}, []),
        ({"optimizer_type": "AdamWScheduleFree", "learning_rate": 1e-3}, []),
        ({"optimizer_type": "AdamWScheduleFree", "lr_scheduler": "cosine"}, ["lr_scheduler"]),
        (
            {"optimizer_type": "x.MyScheduleFree", "lr_scheduler_type": "a.B"},
            ["lr_scheduler_type"],
        ),
        ({"optimizer_type": "adafactor"}, []),
        ({"optimizer_type": "adafactor", "lr_scheduler": "adafactor"}, []),
        ({"optimizer_type": "adafactor", "learning_rate": 1e-5}, ["learning_rate"]),
        (
            {
                "optimizer_type": "adafactor",
                "lr_scheduler": "constant_with_warmup",
                "lr_warmup_steps": 5,
            },
            ["lr_scheduler", "lr_warmup_steps"],
        ),
        (
            {
                "optimizer_type": "adafactor",
                "optimizer_args": ["relative_step=False"],
                "lr_scheduler": "cosine",
                "learning_rate": 1e-5,
            },
            [],
        ),
        (
            {
                "optimizer_type": "adafactor",
                "optimizer_args": ["relative_step=False", "warmup_init=True"],
                "learning_rate": 1e-5,
            },
            ["learning_rate"],
        ),
    ],
)
def test_what_the_optimizer_does_not_read_is_named(settings, expected):
    assert unread(**settings) == expected
