"""What this process may use of the machine that it runs on."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cpu_count(membership: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: fewer than the machine has where an affinity or a container's quota says so.

    Args:
        membership: file that names the control groups of this process; without it, no quota is known.
        cgroups: folder that the control groups are mounted in.

    Returns:
        At least 1; a quota of parts of a core is rounded up.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux alone
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min([cores, *map(math.ceil, _quotas(membership, cgroups))])


def thread_count() -> int:
    """Threads for one network: as many as ``OMP_NUM_THREADS`` says, else all cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else cpu_count()


def _quotas(membership: Path, cgroups: Path) -> Iterator[float]:
    """The quotas, in cores, of the control groups of this process and of all groups above them.

    Inside a container the path may be the host's, which is not mounted there; the top folder is the container's own.
    """
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts, quota = (cgroups, cgroups / "unified"), _unified_quota
        elif "cpu" in controllers.split(","):
            mounts, quota = (cgroups / "cpu", cgroups / controllers), _legacy_quota
        else:
            continue
        names = [name for name in path.split("/") if name not in ("", "..")]
        for mount in mounts:
            for depth in range(len(names) + 1):
                found = quota(mount.joinpath(*names[:depth]))
                if found is not None:
                    yield found


def _unified_quota(group: Path) -> float | None:
    """Quota of a group of version 2; source: "CPU Interface Files" in Linux's admin-guide/cgroup-v2."""
    return _share(*_read(group / "cpu.max").split())


def _legacy_quota(group: Path) -> float | None:
    """Quota of a group of version 1; source: "Management" in Linux's scheduler/sched-bwc."""
    return _share(_read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip())


def _share(quota: str = "", period: str = "") -> float | None:
    """Microseconds of computing in a period of microseconds, as cores; None for ``max``, -1 or anything else."""
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
