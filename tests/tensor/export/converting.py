"""Converts a model in one call.

In: where from, where to, and what `sdft convert` may be told. Out: where to.
"""

from __future__ import annotations

from sdft.events import ignore
from sdft.jobs.convert import run_convert


def convert(source, destination, **options):
    run_convert(source, destination, emit=options.pop("emit", ignore), **options)
    return destination
