import os
from pathlib import Path

import pytest

from busi_lab.machine import cpu_count


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def counted(tmp_path: Path, membership: str) -> int:
    put(tmp_path / "membership", membership)
    return cpu_count(tmp_path / "membership", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # one and a half
        ("5000 100000\n", 1),
        ("1600000 100000\n", 8),  # more than there are
        ("max 100000\n", 8),
        ("", 8),
        ("0 100000\n", 8),
        ("100000 0\n", 8),
        ("nonsense\n", 8),
    ],
)
def test_a_quota_of_version_2(tmp_path: Path, content: str, expected: int) -> None:
    put(tmp_path / "cgroup/cpu.max", content)
    assert counted(tmp_path, "0::/\n") == expected


def test_the_smallest_quota_of_a_group_and_its_parents_holds(tmp_path: Path) -> None:
    put(tmp_path / "cgroup/a/cpu.max", "300000 100000\n")
    put(tmp_path / "cgroup/a/b/cpu.max", "max 100000\n")
    put(tmp_path / "cgroup/a/b/c/cpu.max", "500000 100000\n")
    put(tmp_path / "cgroup/a/b/c/d/cpu.max", "100000 100000\n")  # another's
    assert counted(tmp_path, "0::/a/b/c\n") == 3
    assert counted(tmp_path, "0::/a/other\n") == 3


def test_a_path_outside_the_container_leaves_the_containers_own_quota(tmp_path: Path) -> None:
    put(tmp_path / "cgroup/cpu.max", "400000 100000\n")
    put(tmp_path / "cpu.max", "100000 100000\n")
    assert counted(tmp_path, "0::/docker/0123\n") == 4
    assert counted(tmp_path, "0::/../..\n") == 4


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(tmp_path: Path, mount: str) -> None:
    group = tmp_path / "cgroup" / mount / "jobs/1"
    put(group / "cpu.cfs_quota_us", "250000\n")
    put(group / "cpu.cfs_period_us", "100000\n")
    put(group.parent / "cpu.cfs_quota_us", "-1\n")
    put(group.parent / "cpu.cfs_period_us", "100000\n")
    membership = "5:memory:/elsewhere\n4:cpu,cpuacct:/jobs/{}\n0::/jobs\n"
    assert counted(tmp_path, membership.format(1)) == 3
    assert counted(tmp_path, membership.format(2)) == 8


def test_a_quota_beside_version_1(tmp_path: Path) -> None:
    put(tmp_path / "cgroup/unified/jobs/cpu.max", "200000 100000\n")
    assert counted(tmp_path, "3:cpuset:/\n0::/jobs\n") == 2


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cpu_count(tmp_path / "none", tmp_path) == 8


def test_without_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpu_count(tmp_path / "none", tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count(tmp_path / "none", tmp_path) == 1


def test_here_there_is_one_at_least() -> None:
    assert 1 <= cpu_count() <= 8
