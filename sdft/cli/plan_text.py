"""What `sdft plan` prints, in the language of the person."""

from __future__ import annotations

from collections.abc import Sequence

from sdft.config.write import toml_value
from sdft.jobs.planning.figures import BucketMemory, PlanResult
from sdft.language import Words
from sdft.planning.ledger import PARTS
from sdft.units import format_bytes, format_duration

NUM_BUCKETS_SHOWN = 8
CURVE_COLUMNS, CURVE_ROWS = 61, 5


def plan_text(result: PlanResult, words: Words) -> str:
    """Return the plan as lines."""
    rows = [
        ("model", result.model),
        ("images", _filled(words, "images_of", result, "images", "held_out", "rejected")),
        (
            "steps",
            words(
                "plan_row.steps_of",
                steps=result.steps,
                epochs=result.epochs,
                per_epoch=result.steps_per_epoch,
                batch=", ".join(map(str, result.effective_batch)),
            ),
        ),
        ("time", _time(result, words)),
        ("disk", _disk(result, words)),
        ("memory", _memory(result, words)),
    ]
    if result.card is not None:
        rows.append(("card", _card(result, words)))
    lines = [f"{words(f'plan_row.{name}')}: {value}" for name, value in rows]
    lines += ["", *_curve(result.rates, words), ""]
    lines += _buckets(result.buckets, words)
    return "\n".join([*lines, *_advice(result, words)])


def _filled(words: Words, name: str, result: PlanResult, *fields: str) -> str:
    return words(f"plan_row.{name}", **{field: getattr(result, field) for field in fields})


def _time(result: PlanResult, words: Words) -> str:
    if result.duration_s is None:
        return words("plan_row.time_unknown")
    duration = format_duration(result.duration_s)
    if result.card is None:
        return words("plan_row.time_here", duration=duration)
    return words("plan_row.time_card", duration=duration, card=result.card.name)


def _disk(result: PlanResult, words: Words) -> str:
    disk = result.disk
    names = ("most", "free", "latents", "contexts", "checkpoint", "state")
    return words("plan_row.disk_of", **{name: format_bytes(getattr(disk, name)) for name in names})


def _memory(result: PlanResult, words: Words) -> str:
    if not result.buckets:
        return words("plan_row.memory_unknown", why=result.why_no_memory)
    worst = result.buckets[0]
    return words(
        "plan_row.memory_of", peak=format_bytes(worst.peak_bytes), bucket=_bucket_name(worst)
    )


def _card(result: PlanResult, words: Words) -> str:
    card = result.card
    assert card is not None
    return words(
        "plan_row.card_of",
        card=card.name or words("plan_row.imagined"),
        total=format_bytes(card.total_bytes),
        usable=format_bytes(card.usable_bytes),
    )


def _bucket_name(bucket: BucketMemory) -> str:
    return f"{bucket.batch_size} x {bucket.width_px}x{bucket.height_px}"


def _curve(rates: Sequence[tuple[int, float]], words: Words) -> list[str]:
    """Return the learning rate drawn in characters that every terminal has."""
    top = max(rate for _, rate in rates) or 1.0
    heights = [round(rate / top * (CURVE_ROWS - 1)) for _, rate in rates]
    lines = [f"{words('plan_row.rate')}: {rates[0][1]:.3g} .. {top:.3g} .. {rates[-1][1]:.3g}"]
    for row in range(CURVE_ROWS - 1, -1, -1):
        label = f"{top * row / (CURVE_ROWS - 1):8.2g}"
        lines.append(f"{label} |{''.join('*' if one == row else ' ' for one in heights)}".rstrip())
    lines.append(f"{'':8} +{'-' * len(heights)} {rates[-1][0] + 1}")
    return lines


def _buckets(buckets: Sequence[BucketMemory], words: Words) -> list[str]:
    if not buckets:
        return []
    names = [words(f"plan_row.{part}") for part in PARTS]
    head = " | ".join(["", words("plan_row.memory"), *names])
    lines = [f"{words('plan_row.bucket_table')}{head}"]
    for one in buckets[:NUM_BUCKETS_SHOWN]:
        sizes = [one.peak_bytes, *(one.parts[part] for part in PARTS)]
        cells = " | ".join(f"{format_bytes(size):>8}" for size in sizes)
        lines.append(f"  {_bucket_name(one):16} {cells}")
    if len(buckets) > NUM_BUCKETS_SHOWN:
        lines.append(f"  ... {len(buckets) - NUM_BUCKETS_SHOWN}")
    return [*lines, ""]


def _advice(result: PlanResult, words: Words) -> list[str]:
    if result.fits is None:
        return []
    if result.fits:
        return [words("plan_row.fits")]
    assert result.card is not None
    peak = result.changed_peak_bytes
    assert peak is not None or not result.changes
    shown = format_bytes(peak if peak is not None else result.buckets[0].peak_bytes)
    enough = peak is not None and peak <= result.card.usable_bytes
    lines = [words(f"plan_row.{'fits_after' if enough else 'never_fits'}", peak=shown)]
    for one in result.changes:
        pairs = ", ".join(f"{name} = {toml_value(value)}" for name, value in one.values.items())
        lines.append(f"  {pairs}")
        lines.append(f"      {words(f'plan_cost.{one.cost}', slower=f'{one.slower:.0%}')}")
    return lines
