"""ONNX models: which runtime is installed, what it runs on, what the model takes and gives."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdft.errors import DataError, EnvironmentFault, UserError

RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
)
"""Packages that all install the module `onnxruntime`, over each other's files."""

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""By the name of `--device`, the one that `auto` takes first in front."""

CHANNELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """A model that takes one batch of pictures and gives one row of numbers for each."""

    session: Any
    input_name: str
    output_name: str
    num_outputs: int
    """Numbers a picture."""
    batch: int | None
    """The only batch size that it takes, or None for any."""
    height: int
    width: int
    channels_first: bool
    device: str
    note: str
    """Why it runs elsewhere than asked; empty where it does not."""

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Shapes: [B, H, W, 3] or [B, 3, H, W] in, [B, num_outputs] out.

        Raises: MemoryError where the device has no room for the batch.
        """
        try:
            (outputs,) = self.session.run([self.output_name], {self.input_name: batch})
        except _runtime_errors() as error:
            if _is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise
        return np.asarray(outputs, dtype=np.float32)


def open_model(path: Path, device: str = "auto") -> OnnxModel:
    """Open a tagger.

    Raises: EnvironmentFault where no runtime is installed, or two; DataError for a file that is
        no ONNX model, or not one of pictures to numbers; UserError for a device that is not there.
    """
    ort = _runtime()
    providers = _providers(ort, device)
    _find_cuda_libraries(ort, providers)
    try:
        session = ort.InferenceSession(str(path), providers=providers)
    except _runtime_errors() as error:
        raise DataError(
            what=f"not a model that onnxruntime {ort.__version__} can run: {error}",
            where=str(path),
            fix="download it again; a newer model may need a newer onnxruntime",
        ) from error
    used = session.get_providers()[0]
    asked = providers[0]
    note = "" if used == asked else f"{asked} did not start, so it runs on the CPU"
    return _described(path, session, next(n for n, p in PROVIDERS.items() if p == used), note)


def installed_runtimes() -> list[str]:
    """Return which of the packages that exclude one another are installed."""
    found = []
    for name in RUNTIMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            found.append(name)
    return found


def _runtime() -> Any:
    installed = installed_runtimes()
    if len(installed) > 1:
        raise EnvironmentFault(
            what=f"{' and '.join(installed)} are installed together; they write over each other",
            fix=f"python -m pip uninstall -y {' '.join(installed)}, then install one of them anew",
        )
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise EnvironmentFault(
            what=f"taggers need onnxruntime: {error}",
            fix='python -m pip install "sdft-trainer[tagger]"'
            " (or onnxruntime-gpu for CUDA, onnxruntime-directml for other cards on Windows)",
            key="onnxruntime_missing",
            values={"error": error},
        ) from error


def _providers(ort: Any, device: str) -> list[str]:
    available = ort.get_available_providers()
    cpu = PROVIDERS["cpu"]
    if device == "auto":
        first = next(p for p in PROVIDERS.values() if p in available)
        return [first] if first == cpu else [first, cpu]
    if device not in PROVIDERS:
        raise UserError(
            what=f'no device "{device}"',
            where="--device",
            fix=f"one of auto, {', '.join(PROVIDERS)}",
        )
    provider = PROVIDERS[device]
    if provider not in available:
        here = ", ".join(name for name, p in PROVIDERS.items() if p in available)
        raise UserError(
            what=f"the installed onnxruntime has no {device}, only {here}",
            where="--device",
            fix="install onnxruntime-gpu for cuda, onnxruntime-directml for directml",
        )
    return [provider] if provider == cpu else [provider, cpu]


def _find_cuda_libraries(ort: Any, providers: list[str]) -> None:
    """Let onnxruntime use the CUDA libraries that torch brings along."""
    if providers[0] == PROVIDERS["cuda"] and hasattr(ort, "preload_dlls"):
        import torch

        assert torch.__version__
        ort.preload_dlls()


def _described(path: Path, session: Any, device: str, note: str) -> OnnxModel:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape: list[Any] = list(inputs[0].shape) if len(inputs) == 1 else []
    channels_first = len(shape) == 4 and shape[1] == CHANNELS
    sides = shape[2:] if channels_first else shape[1:3]
    pictures = len(shape) == 4 and CHANNELS in (shape[1], shape[3])
    numbers = outputs[0].shape
    if (
        not pictures
        or not all(isinstance(side, int) and side > 0 for side in sides)
        or len(numbers) != 2
        or not isinstance(numbers[1], int)
    ):
        raise DataError(
            what=f"not a tagger: it takes {[one.shape for one in inputs]} and gives"
            f" {[one.shape for one in outputs]}",
            where=str(path),
            fix="a tagger takes [images, height, width, 3] and gives [images, tags]",
        )
    return OnnxModel(
        session=session,
        input_name=inputs[0].name,
        output_name=outputs[0].name,
        num_outputs=numbers[1],
        batch=shape[0] if isinstance(shape[0], int) else None,
        height=sides[0],
        width=sides[1],
        channels_first=channels_first,
        device=device,
        note=note,
    )


def _runtime_errors() -> tuple[type[Exception], ...]:
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    # They share no base of their own.
    return tuple(
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )


def _is_out_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    # DirectML gives Windows' number for "not enough memory" only.
    signs = ("failed to allocate memory", "out of memory", "bad allocation", "8007000e")
    return any(sign in words for sign in signs)
