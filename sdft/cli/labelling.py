"""The options and the words that `sdft caption` and `sdft tag` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdft.jobs.labelling import LabelResult

Images = Annotated[list[str], typer.Argument(help="Folders, files, wildcards.", metavar="IMAGES")]
ForceDownload = Annotated[bool, typer.Option("--force_download", help="Download the model again.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or directml.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch_size", min=1, help="Images at once; found by itself where it is left out."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--max_data_loader_n_workers",
        "--workers",
        min=0,
        help="Threads that decode images; else one for each core.",
    ),
]
NumProcesses = Annotated[
    int,
    typer.Option(
        "--num_processes", min=1, help="So many processes share the images, each on its own GPU."
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Folders below too.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace words that a person wrote; undo brings them back."),
]
ModelDir = Annotated[
    Path, typer.Option("--model_dir", metavar="DIR", help="Where downloaded models are kept.")
]

NUM_REJECTED_SHOWN = 20


def result_words(result: LabelResult) -> str:
    """Return what became of the images, for people."""
    lines = [f"{result.images} images: {result.labelled} done with {result.model}"]
    if result.images_per_s:
        lines[0] += f", {result.images_per_s:.3g} images/s, batch size {result.batch_size}"
    if result.finished:
        lines.append(f"  {result.finished} were done before by the same settings")
    if result.kept:
        lines.append(
            f"  {result.kept} have words of your own, which were kept (--overwrite replaces them)"
        )
    if result.rejected:
        lines.append(f"  {len(result.rejected)} could not be used:")
        lines += [
            f"    {problem.where}: {problem.what}"
            for problem in result.rejected[:NUM_REJECTED_SHOWN]
        ]
        if len(result.rejected) > NUM_REJECTED_SHOWN:
            lines.append(f"    ... and {len(result.rejected) - NUM_REJECTED_SHOWN} more")
    lines += [f"{tag}: {count}" for tag, count in result.tags]
    return "\n".join(lines)
