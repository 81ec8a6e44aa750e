"""Temperature and load of the GPU that a run uses, where NVIDIA's library tells them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFigures:
    temperature_c: int
    load_percent: int
    used_bytes: int
    total_bytes: int


class GpuProbe:
    """Asks NVML, the library of nvidia-ml-py; says nothing where either is missing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._is_missing = False

    def read(self, pid: int | None) -> GpuFigures | None:
        """Return the figures of the GPU on which process `pid` computes, else of the only one.

        With several GPUs and none of them used by that process nothing is said: the numbers of
        another's work would mislead.
        """
        if not self._load():
            return None
        nvml = self._nvml
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
            chosen = [handle for handle in handles if _computes(nvml, handle, pid)]
            handle = (chosen or handles)[0] if chosen or len(handles) == 1 else None
            if handle is None:
                return None
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            return GpuFigures(
                temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                load_percent=nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
                used_bytes=memory.used,
                total_bytes=memory.total,
            )
        except nvml.NVMLError:
            # Laptops switch their GPU off, and some cards do not tell a figure.
            return None

    def _load(self) -> bool:
        if self._nvml is None and not self._is_missing:
            try:
                nvml = import_module("pynvml")
            except (ImportError, OSError):
                self._is_missing = True
                return False
            try:
                nvml.nvmlInit()
                self._nvml = nvml
            except nvml.NVMLError:
                self._is_missing = True
        return self._nvml is not None


def _computes(nvml: Any, handle: Any, pid: int | None) -> bool:
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return False
    return any(process.pid == pid for process in processes)
