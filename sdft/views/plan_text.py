"""What `sdft plan` found, in words, for the command and for the wizard.

In: the command's JSON object. Out: lines in the language of the person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdft.language import Words
from sdft.units import format_bytes, format_duration
from sdft.views.text_chart import chart

NUM_BUCKETS_SHOWN = 8
PARTS = ("weights", "gradients", "optimizer", "activations", "temporaries")

Plan = Mapping[str, Any]


def plan_text(plan: Plan, words: Words) -> str:
    """Return the whole plan."""
    lines = [f"{name}: {value}" for name, value in plan_rows(plan, words)]
    lines += ["", *_curve(plan["learning_rate"], words), ""]
    lines += _buckets(plan["buckets"], words)
    if plan["scaling"] is not None:
        lines += _scaling(plan["scaling"], words)
    return "\n".join([*lines, *advice(plan, words)])


def plan_rows(plan: Plan, words: Words) -> list[tuple[str, str]]:
    """Return names and values: what is trained, how long, and what it takes."""
    numbers = {name: plan[name] for name in ("images", "held_out", "rejected")}
    values = {
        "model": plan["model"],
        "images": words("plan_row.images_of", **numbers),
        "steps": words(
            "plan_row.steps_of",
            steps=plan["steps"],
            epochs=plan["epochs"],
            per_epoch=plan["steps_per_epoch"],
            batch=", ".join(map(str, plan["effective_batch"])),
        ),
        "time": _time(plan, words),
        "disk": _disk(plan, words),
        "memory": _memory(plan, words),
    }
    if plan["sampling_bytes"]:
        values["samples"] = _samples(plan, words)
    if plan["card"] is not None:
        values["card"] = _card(plan["card"], words)
    return [(words(f"plan_row.{name}"), value) for name, value in values.items()]


def advice(plan: Plan, words: Words) -> list[str]:
    """Return whether the run fits, and what to change; nothing where there is no card."""
    if plan["fits"] is None:
        return []
    if plan["fits"]:
        return [words("plan_row.fits")]
    peak = plan["changed_peak_bytes"]
    enough = peak is not None and peak <= plan["card"]["usable_bytes"]
    shown = format_bytes(plan["memory"]["peak_bytes"] if peak is None else peak)
    lines = [words(f"plan_row.{'fits_after' if enough else 'never_fits'}", peak=shown)]
    for one in plan["changes"]:
        pairs = ", ".join(f"{name} = {text}" for name, text in one["toml"].items())
        cost = words(f"plan_cost.{one['cost']}", slower=f"{one['slower']:.0%}")
        lines += [f"  {pairs}", f"      {cost}"]
    return lines


def _time(plan: Plan, words: Words) -> str:
    if plan["duration_s"] is None:
        return words("plan_row.time_unknown")
    duration = format_duration(plan["duration_s"])
    if plan["card"] is None:
        return words("plan_row.time_here", duration=duration)
    return words("plan_row.time_card", duration=duration, card=plan["card"]["name"])


def _disk(plan: Plan, words: Words) -> str:
    names = ("most", "free", "latents", "contexts", "checkpoint", "state")
    sizes = {name: format_bytes(plan["disk"][f"{name}_bytes"]) for name in names}
    return words("plan_row.disk_of", **sizes)


def _memory(plan: Plan, words: Words) -> str:
    worst = plan["memory"]
    if worst is None:
        return words("plan_row.memory_unknown", why=plan["why_no_memory"])
    peak = format_bytes(worst["peak_bytes"])
    return words("plan_row.memory_of", peak=peak, bucket=_bucket_name(worst))


def _samples(plan: Plan, words: Words) -> str:
    """Return what drawing takes, and whether the card has it."""
    peak, card = plan["sampling_bytes"], plan["card"]
    fits = card is None or peak <= card["usable_bytes"]
    return words(f"plan_row.samples_{'of' if fits else 'left_out'}", peak=format_bytes(peak))


def _card(card: Plan, words: Words) -> str:
    return words(
        "plan_row.card_of",
        card=card["name"] or words("plan_row.imagined"),
        total=format_bytes(card["total_bytes"]),
        usable=format_bytes(card["usable_bytes"]),
    )


def _bucket_name(bucket: Plan) -> str:
    width, height = bucket["resolution"]
    return f"{bucket['batch_size']} x {width}x{height}"


def _curve(rates: Sequence[Sequence[float]], words: Words) -> list[str]:
    values = [rate for _, rate in rates]
    shown = f"{values[0]:.3g} .. {max(values) or 1.0:.3g} .. {values[-1]:.3g}"
    drawn = chart(values, top=max(values) or 1.0, end=str(rates[-1][0] + 1))
    return [f"{words('plan_row.rate')}: {shown}", *drawn]


def _scaling(scaling: Plan, words: Words) -> list[str]:
    """Return DDP's row for each number of GPUs, and the other schemes' for the last one."""
    schemes = scaling["schemes"]
    title = {name: scaling[name] for name in ("card", "link", "batch_size")}
    lines = [words("plan_row.scaling_title", **title)]
    rows = [("ddp", row) for row in schemes["ddp"]]
    rows += [(name, schemes[name][-1]) for name in schemes if name != "ddp"]
    columns = ("scheme", "gpus", "sent", "step", "efficiency", "held")
    lines.append(" | ".join(words(f"plan_row.scaling_{name}") for name in columns))
    for name, row in rows:
        cells = [f"{name:>6}", f"{row['gpus']:4}", f"{format_bytes(row['sent_bytes']):>8}"]
        cells += [f"{row['step_s'] * 1000:7.0f} ms", f"{row['efficiency']:6.1%}"]
        lines.append("  " + " | ".join([*cells, format_bytes(row["held_bytes"])]))
    return [*lines, words("plan_row.scaling_limit"), ""]


def _buckets(buckets: Sequence[Plan], words: Words) -> list[str]:
    if not buckets:
        return []
    names = [words(f"plan_row.{part}") for part in ("memory", *PARTS)]
    lines = [" | ".join([words("plan_row.bucket_table"), *names])]
    for one in buckets[:NUM_BUCKETS_SHOWN]:
        sizes = [one["peak_bytes"], *(one["parts"][part] for part in PARTS)]
        cells = " | ".join(f"{format_bytes(size):>8}" for size in sizes)
        lines.append(f"  {_bucket_name(one):16} {cells}")
    if len(buckets) > NUM_BUCKETS_SHOWN:
        lines.append(f"  ... {len(buckets) - NUM_BUCKETS_SHOWN}")
    return [*lines, ""]
