"""What a measurement was made on: said beside every number, and the name of its file."""

import os
import platform
import re
from pathlib import Path

import torch


def machine() -> dict[str, str]:
    """Processor, cores, kernels and threads of torch, and how busy it was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "kernels": f"{torch.backends.cpu.get_cpu_capability()}, "
        + ("MKL" if torch.backends.mkl.is_available() else "no MKL")
        + (", oneDNN" if torch.backends.mkldnn.is_available() else ""),
        "threads": str(torch.get_num_threads()),
        "system": platform.system(),
        "python": platform.python_version(),
        "load at start": f"{load:.1f}",
    }


def processor() -> str:
    """Its name, and family and model, which tell generations of one name apart."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in info.read_text().splitlines())
    fields: dict[str, str] = {}
    for name, _, value in lines:
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", platform.machine())
    numbers = [f"{word} {fields[key]}" for word, key in _NUMBERS.items() if key in fields]
    return ", ".join([name, *numbers])


_COMMON = ("r", "tm", "cpu", "processor", "family", "model")  # words that tell nothing apart
_NUMBERS = {"family": "cpu family", "model": "model"}


def file_of(benchmark: str, processor: str) -> str:
    """The name of a benchmark's file of one processor.

    >>> file_of("control", "AMD EPYC, family 25, model 1")
    'control.amd-epyc-25-1.json'
    """
    words = re.findall(r"[a-z0-9]+", processor.lower())
    return f"{benchmark}.{'-'.join(word for word in words if word not in _COMMON)}.json"
