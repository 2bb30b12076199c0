"""Loader processes: they leave signals to the run that they serve."""

import os
import signal
import threading

from lightning.fabric.utilities.seed import pl_worker_init_function


def begin_worker(number: int) -> None:
    """Let a loader process end by SIGTERM of its own run alone; called in it by torch.

    SLURM sends SIGTERM to every process of a job. The run then saves its state, for which it needs its loaders.

    Args:
        number: of the process among the loaders.
    """
    if int(os.environ.get("PL_SEED_WORKERS", "0")):
        pl_worker_init_function(number)  # as Lightning does where nobody gives a function
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_by_parent, args=(os.getppid(),), daemon=True).start()


def _end_by_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
