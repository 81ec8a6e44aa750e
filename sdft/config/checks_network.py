"""Checks of the settings of a hypernetwork: what excludes what, and what has no effect."""

from __future__ import annotations

from collections.abc import Iterator

from sdft.config.merge import missing_path
from sdft.config.places import Origins, place
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.config.training_network import MAX_FACTOR, MAX_LAYERS, NetworkSettings
from sdft.errors import Problem

FORMS = ("pt", "safetensors")

_OF_THE_MODEL = ("train_text_encoder", "freeze", "lr_by_name", "block_lr")
"""Settings that choose which weights of the model are trained."""


def problems_of_network(t: TrainingSettings, origins: Origins) -> Iterator[Problem]:
    """Yield what cannot work together."""

    def problem(what: str, *names: str, fix: str = "") -> Problem:
        return Problem(what, place(origins, *names), fix)

    if not t.hypernetwork:
        if t.save_model_as == "pt":
            yield problem(
                "pt is the form of a hypernetwork, and a model is trained",
                "save_model_as",
                fix="set save_model_as to safetensors or ckpt, or set hypernetwork",
            )
        return
    for name in _OF_THE_MODEL:
        if getattr(t, name):
            yield problem(
                f"{name} is about weights of the model, which stays as it is where a hypernetwork"
                " is trained",
                name,
                "hypernetwork",
                fix=f"remove {name} or hypernetwork",
            )
    if t.save_model_as is not None and t.save_model_as not in FORMS:
        yield problem(
            f"a hypernetwork cannot be saved as {t.save_model_as}",
            "save_model_as",
            fix="set save_model_as to pt, which web UIs load, or to safetensors",
        )
    missing = missing_path(t.network_weights, "file") if t.network_weights is not None else None
    if missing:
        yield problem(f"network_weights: {missing[0]}", "network_weights", fix=missing[1])
    yield from _problems_of_layers(t, origins)


def _problems_of_layers(t: TrainingSettings, origins: Origins) -> Iterator[Problem]:
    layers = t.layer_structure
    if not 2 <= len(layers) <= MAX_LAYERS or layers[0] != 1 or layers[-1] != 1:
        what = f"layer_structure must begin and end with 1; {_shown(layers)} does not"
        yield Problem(what, place(origins, "layer_structure"), "write it like 1,2,1")
    elif not all(0 < factor <= MAX_FACTOR for factor in layers):
        what = f"layer_structure takes numbers above 0, up to {MAX_FACTOR:g}; {_shown(layers)}"
        yield Problem(what, place(origins, "layer_structure"), "write it like 1,2,1")
    rates = t.dropout_structure
    if rates and len(rates) != len(layers):
        yield Problem(
            f"dropout_structure has {len(rates)} numbers and layer_structure {len(layers)}",
            place(origins, "dropout_structure", "layer_structure"),
            "give one number for each; the first counts nothing",
        )
    elif not all(0 <= rate < 1 for rate in rates):
        what = f"dropout_structure takes numbers from 0 to below 1; {_shown(rates)}"
        yield Problem(what, place(origins, "dropout_structure"))


def effects_of_network(t: TrainingSettings, origins: Origins) -> list[Problem]:
    """Return notices: settings that change nothing as things are."""
    names = [one.name for one in settings_of(NetworkSettings) if one.name != "hypernetwork"]
    changed = [n for n in names if getattr(t, n) != NetworkSettings.model_fields[n].default]
    if not t.hypernetwork:
        return [
            Problem(f"{name} has no effect without hypernetwork", place(origins, name))
            for name in changed
        ]
    needs = {
        "activate_output": ("another activation_func than linear", t.activation_func != "linear"),
        "dropout_structure": ("use_dropout", t.use_dropout),
        "last_layer_dropout": (
            "use_dropout alone, without dropout_structure",
            t.use_dropout and not t.dropout_structure,
        ),
        "weight_initialization": ("new weights", t.network_weights is None),
    }
    return [
        Problem(f"{name} has no effect without {needed}", place(origins, name))
        for name, (needed, has_effect) in needs.items()
        if name in changed and not has_effect
    ]


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
