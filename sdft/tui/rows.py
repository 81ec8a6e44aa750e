"""The sentences and rows of the watch screen, from what was seen of a run. No screen in here."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite

from rich.cells import cell_len
from textual.content import Content

from sdft.events import Notice
from sdft.language import Words
from sdft.tui.following import Seen
from sdft.units import format_bytes, format_duration
from sdft.views.console import stage_words
from sdft.views.fates import Fates
from sdft.views.run_state import DIED, PAUSED, RUNNING, STOPPED
from sdft.views.text import visible

QUIET_AFTER_STEPS = 10
"""A run that says nothing for as long as this many steps take is shown to be quiet."""

QUIET_AT_LEAST_S = 30.0

STATE_STYLES = {
    "waiting": "$foreground-muted",
    "running": "$success",
    "paused": "$warning",
    "finished": "$primary",
    "stopped": "$warning",
    "died": "$error",
}


def literal(text: str, style: str = "") -> Content:
    """Return text from a file or another program as it is: no markup, no control character."""
    return Content.styled(visible(text).replace("\t", " "), style)


def run_name(seen: Seen) -> str:
    run = seen.snapshot.summary.run
    return run.name if run is not None else seen.run.path.name


def title_row(seen: Seen, words: Words) -> Content:
    """Return name, state, device and model in one line."""
    state = seen.state.name
    parts = [
        literal(run_name(seen), "bold"),
        Content.styled(f"● {words(f'state.{state}')}", f"bold {STATE_STYLES[state]}"),
    ]
    run = seen.snapshot.summary.run
    if run is not None:
        parts.append(literal(f"{run.device}  {run.model}", "$foreground-muted"))
    return Content("   ").join(parts)


def progress_row(seen: Seen, words: Words) -> Content:
    """Return step, epoch, time left, or the stage at work, and how old the news is."""
    summary = seen.snapshot.summary
    parts: list[str] = []
    if summary.run is not None:
        steps = f"{summary.run.steps:,}"
        parts.append(words("run.steps", step=f"{summary.step:,}", steps=steps))
        if summary.last_step is not None:
            epoch = summary.last_step.epoch
            parts.append(words("run.epoch", epoch=epoch, epochs=summary.run.epochs))
    elif summary.last_step is not None:
        parts.append(words("run.step_only", step=f"{summary.step:,}"))
    left_s = summary.left_s
    if seen.state.name in (RUNNING, PAUSED) and left_s and isfinite(left_s) and not summary.end:
        parts.append(words("run.left", duration=format_duration(left_s)))
    if seen.state.name == RUNNING:
        if (stage := stage_words(summary)) is not None:
            parts.append(stage)
        if seen.quiet_s > quiet_after_s(seen):
            parts.append(words("run.no_news", duration=format_duration(seen.quiet_s)))
    if seen.snapshot.share_read < 1:
        percent = round(seen.snapshot.share_read * 100)
        parts.append(words("run.reading", percent=percent))
    return literal("   ".join(parts))


def quiet_after_s(seen: Seen) -> float:
    """Return after how many seconds without an event a run at work counts as quiet."""
    step_s = seen.snapshot.summary.step_duration_s.mean or 0.0
    return max(QUIET_AT_LEAST_S, QUIET_AFTER_STEPS * step_s) if isfinite(step_s) else inf


def alert_rows(seen: Seen, words: Words) -> Content | None:
    """Return why a run ended early and how it goes on, or None where it did not."""
    if seen.state.name not in (STOPPED, DIED):
        return None
    state = words(f"state.{seen.state.name}")
    content = Content.assemble(
        Content.styled(f"{state}: ", "bold"), literal(" ".join(seen.state.reason.split()))
    )
    if seen.state.fix:
        way_on = Content.styled(f"{words('run.goes_on')} ", "bold")
        content = Content.assemble(content, "\n", way_on, literal(seen.state.fix))
    return content


def figure_rows(seen: Seen, words: Words) -> list[tuple[str, str]]:
    """Return the names and values of the figures panel; those without a value are left out."""
    summary = seen.snapshot.summary
    step = summary.last_step
    values: dict[str, str | None] = {
        "loss_smooth": _number(summary.loss.mean),
        "loss": _number(step.loss if step else None),
        "validation": _number(summary.validation.loss if summary.validation else None),
        "epoch_loss": _number(summary.epoch_losses[-1].loss if summary.epoch_losses else None),
        "lr": f"{step.lr:.3g}" if step else None,
        "grad_norm": _number(step.grad_norm if step else None),
        "images_per_s": _number(summary.images_per_s),
        "step_s": _duration(summary.step_duration_s.mean),
        "memory_bytes": _memory(seen, words),
        "gpu": _gpu(seen, words),
        "bucket": f"{step.bucket[0]} x {step.bucket[1]}" if step else None,
        "images": _images(seen, words),
        "checkpoint": _at_step(summary.checkpoint.step if summary.checkpoint else None, words),
        "state": _at_step(summary.state.step if summary.state else None, words),
        "warnings": _warnings(seen),
    }
    return [(words(f"figure.{name}"), value) for name, value in values.items() if value]


def table(rows: Sequence[tuple[str, str]], width: int) -> Content:
    """Return names on the left, values on the right, `width` columns in all."""
    lines = []
    for name, value in rows:
        gap = " " * max(width - cell_len(visible(name)) - cell_len(visible(value)), 1)
        lines.append(Content.assemble(literal(name, "$foreground-muted"), gap, literal(value)))
    return Content("\n").join(lines)


def notice_rows(seen: Seen, words: Words, most: int) -> Content:
    """Return the latest warnings and errors, the newest last."""
    summary = seen.snapshot.summary
    serious = [notice for notice in summary.notices if notice.severity != "info"]
    if not serious:
        return Content.styled(words("notices.empty"), "$foreground-muted")
    total = sum(n for severity, n in summary.num_notices.items() if severity != "info")
    shown = serious[-most:]
    rows = [_notice(notice) for notice in shown]
    if total > len(shown):
        more = words("notices.more", number=total - len(shown))
        rows = [Content.styled(more, "$foreground-muted"), *rows[1:]]
    return Content("\n").join(rows)


def _notice(notice: Notice) -> Content:
    style = "$error" if notice.severity == "error" else "$warning"
    sign = "x" if notice.severity == "error" else "!"
    return Content.assemble(
        Content.styled(f"{sign} ", f"bold {style}"), literal(" ".join(notice.message.split()))
    )


def fates_rows(fates: Fates | None, seen: Seen, words: Words, width: int) -> Content:
    """Return how many images are used, why others are not, and the buckets with bars."""
    summary = seen.snapshot.summary
    if fates is None and not summary.num_rejected:
        return Content.styled(words("images.empty"), "$foreground-muted")
    if fates is None:
        reasons = summary.num_rejected_by_reason
        rejected = [(item.path, item.reason) for item in summary.rejected]
        counts = [(words("images.rejected"), f"{summary.num_rejected:,}")]
    else:
        reasons, rejected = fates.reasons, list(fates.rejected)
        counts = [(words("images.used"), f"{fates.num_used:,}")]
        counts.append((words("images.rejected"), f"{fates.num_rejected:,}"))
    parts = [table(counts, min(width, 30))]
    if reasons:
        rows = [(reason, f"{number:,}") for reason, number in reasons.items()]
        parts.append(_headed(words("images.reasons"), table(rows, min(width, 70))))
    if fates is not None and fates.buckets:
        parts.append(_headed(words("images.buckets"), _bars(fates, width)))
    if rejected:
        lines = [literal(f"{path}: {reason}") for path, reason in rejected]
        parts.append(_headed(words("images.list"), Content("\n").join(lines)))
    return Content("\n\n").join(parts)


def legend(runs: Sequence[Seen], colors: Sequence[tuple[int, int, int]]) -> Content:
    """Return each run's name in the colour of its curves."""
    names = []
    for position, seen in enumerate(runs):
        red, green, blue = colors[position % len(colors)]
        names.append(literal(f"■ {run_name(seen)}", f"rgb({red},{green},{blue})"))
    return Content("   ").join(names)


def _headed(title: str, body: Content) -> Content:
    return Content.assemble(Content.styled(title, "bold $primary"), "\n", body)


def _bars(fates: Fates, width: int) -> Content:
    most = max(fates.buckets.values())
    room = max(min(width - 24, 60), 8)
    lines = []
    for (bucket_width, bucket_height), number in fates.buckets.items():
        name = f"{bucket_width} x {bucket_height}".rjust(12)
        bar = "█" * max(round(room * number / most), 1)
        lines.append(Content.assemble(f"{name}  {number:7,} ", Content.styled(bar, "$primary")))
    return Content("\n").join(lines)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _duration(duration_s: float | None) -> str | None:
    if duration_s is None or not isfinite(duration_s):
        return None
    return f"{duration_s * 1000:.0f} ms" if duration_s < 1 else format_duration(duration_s)


def _memory(seen: Seen, words: Words) -> str | None:
    summary = seen.snapshot.summary
    used = summary.last_step.memory_bytes if summary.last_step else None
    if used is None:
        return None
    plan = summary.memory_plan
    if plan is None:
        return format_bytes(used)
    return words("figure.memory_of", used=format_bytes(used), planned=format_bytes(plan.peak_bytes))


def _gpu(seen: Seen, words: Words) -> str | None:
    if seen.gpu is None:
        return None
    return words("figure.gpu_of", temperature=seen.gpu.temperature_c, load=seen.gpu.load_percent)


def _images(seen: Seen, words: Words) -> str | None:
    summary = seen.snapshot.summary
    if summary.run is None:
        return None
    if not summary.num_rejected:
        return f"{summary.run.images:,}"
    return words(
        "figure.images_of", images=f"{summary.run.images:,}", rejected=summary.num_rejected
    )


def _at_step(step: int | None, words: Words) -> str | None:
    return None if step is None else words("figure.at_step", step=f"{step:,}")


def _warnings(seen: Seen) -> str | None:
    counts = seen.snapshot.summary.num_notices
    number = counts.get("warning", 0) + counts.get("error", 0)
    return str(number) if number else None
