"""Loader processes and signals."""

import signal
import subprocess
import time
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from busi_lab.data.workers import begin_worker
from tests.programs import is_alive


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> Any:
        return torch.tensor(number)


def test_a_loader_lives_through_a_signal_to_all_processes_of_a_job_and_ends_with_its_run() -> None:
    loader = DataLoader(Numbers(), num_workers=1, worker_init_fn=begin_worker, prefetch_factor=1)
    batches: Any = iter(loader)
    seen = [int(next(batches))]
    (worker,) = batches._workers
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # from another process than this one
    seen += [int(batch) for batch in batches]
    assert seen == list(range(40))

    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    end = time.monotonic() + 20
    while is_alive(worker.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(worker.pid)
    assert worker.exitcode != -signal.SIGKILL
