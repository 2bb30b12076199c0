"""The GPUs of this machine, as ``nvidia-smi`` tells of them, without CUDA being initialised in this process."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Identifiers of the GPUs that jobs may use, each a value of ``CUDA_VISIBLE_DEVICES``."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [item for item in environment["CUDA_VISIBLE_DEVICES"].split(",") if item.strip() not in ("", "-1")]
    return _listed(_nvidia_smi("-L"))


def half_full(gpus: Sequence[str]) -> str:
    """Those of these GPUs, by number or UUID, of whose memory more than half is in use, in words; empty for none."""
    full = []
    queried = _nvidia_smi("--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits")
    for line in queried.splitlines():
        index, uuid, *memory = [item.strip() for item in line.split(",")]
        if {index, uuid} & set(gpus) and len(memory) == 2 and all(item.isdecimal() for item in memory):
            used, total = map(int, memory)  # MiB
            if used > total / 2:
                full.append(f"GPU {index} has {used / 1024:.1f} of {total / 1024:.1f} GiB in use")
    return ", ".join(full)


def _listed(text: str) -> list[str]:
    """The GPUs in the output of ``nvidia-smi -L``: by number, or by UUID where one is split into instances (MIG).

    An instance takes the place of its GPU; a GPU that is to be split and is not yet (``No MIG devices found``) is of no
    use. Format: "Listing MIG devices" in NVIDIA's Multi-Instance GPU user guide.
    """
    gpus = list[list[str]]()
    split = False
    for line in text.splitlines():
        uuid = re.search(r"\(UUID: ([^)]+)\)", line)
        if line.startswith("GPU "):
            gpus.append([uuid.group(1)] if uuid else [])
            whole = True
        elif gpus and "MIG" in line:
            gpus[-1] = [*([] if whole else gpus[-1]), *([uuid.group(1)] if uuid else [])]
            split, whole = True, False
    return [name for names in gpus for name in names] if split else [str(number) for number in range(len(gpus))]


def _nvidia_smi(*arguments: str) -> str:
    """What it prints; nothing where there is none, or no GPU."""
    try:
        called = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return called.stdout
