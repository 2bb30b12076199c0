"""GPUs as ``nvidia-smi`` lists them; the texts are in the format of NVIDIA's Multi-Instance GPU user guide."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from busi_lab.sweep.executors.local import LocalExecutor, LocalSettings
from busi_lab.sweep.gpus import half_full, visible_gpus

WHOLE = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-0000-0000-0000-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-0000-0000-0000-000000000000)
"""
SPLIT = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaaaaaa-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbbbbbb-0000-0000-0000-000000000000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-0000-0000-0000-000000000000)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-33333333-0000-0000-0000-000000000000)
  No MIG devices found.
"""
OF_AN_OLD_DRIVER = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0)
  MIG 1g.5gb Device 0: (UUID: MIG-GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0/7/0)
"""
MEMORY = """\
0, GPU-11111111-0000-0000-0000-000000000000, 61440, 81920
1, GPU-22222222-0000-0000-0000-000000000000, 512, 81920
2, GPU-33333333-0000-0000-0000-000000000000, [N/A], [N/A]
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which prints the file ``list`` or ``memory``."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && exec cat {tmp_path}/list || exec cat {tmp_path}/memory\n')
    program.chmod(0o755)
    (tmp_path / "list").write_text(WHOLE)
    (tmp_path / "memory").write_text(MEMORY)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("listed", "gpus"),
    [
        (WHOLE, ["0", "1"]),
        (
            SPLIT,
            [
                "MIG-aaaaaaaa-0000-0000-0000-000000000000",
                "MIG-bbbbbbbb-0000-0000-0000-000000000000",
                "GPU-22222222-0000-0000-0000-000000000000",
            ],
        ),
        (OF_AN_OLD_DRIVER, ["MIG-GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0/7/0"]),
        ("No devices found.\n", []),
    ],
)
def test_gpus_and_their_instances(nvidia_smi: Path, listed: str, gpus: list[str]) -> None:
    (nvidia_smi / "list").write_text(listed)
    assert visible_gpus() == gpus


def test_the_environment_counts_more(nvidia_smi: Path) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,MIG-a"}) == ["2", "MIG-a"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_memory_that_is_in_use(nvidia_smi: Path) -> None:
    assert half_full(["0", "1", "2"]) == "GPU 0 has 60.0 of 80.0 GiB in use"
    assert half_full(["GPU-11111111-0000-0000-0000-000000000000"]) == "GPU 0 has 60.0 of 80.0 GiB in use"
    assert half_full(["1"]) == ""


@pytest.mark.parametrize("jobs_per_gpu", [1, 2])
def test_a_warning_where_several_jobs_share_a_gpu(
    nvidia_smi: Path, caplog: pytest.LogCaptureFixture, jobs_per_gpu: int
) -> None:
    executor = LocalExecutor(LocalSettings(jobs_per_gpu=jobs_per_gpu))
    places = executor.places([OmegaConf.create({"trainer": {"accelerator": "auto"}})])
    executor.close()
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "1"] * jobs_per_gpu
    warned = ["GPU 0 has 60.0 of 80.0 GiB in use, and several jobs are to share a GPU (launcher.jobs_per_gpu)"]
    assert [record.message for record in caplog.records] == (warned if jobs_per_gpu > 1 else [])
