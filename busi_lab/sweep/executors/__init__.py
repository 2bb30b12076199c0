"""Executors: where the processes of a sweep run. One file each, chosen by ``launcher=NAME``.

An executor places processes and nothing more: what a job is, whether it is continued, and what came of it is decided
from its directory, the same way for all of them.
"""

from busi_lab.sweep.executors.protocol import LOST, Command, Executor, Place, Process, make_executor

__all__ = ["LOST", "Command", "Executor", "Place", "Process", "make_executor"]
