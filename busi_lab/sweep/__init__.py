"""Sweeps: each job is a ``busi-train`` process of its own, so that none can harm another.

A sweep's directory follows from its command, and a job's directory from what sets it apart from the others: the
same command is the same sweep. Its finished jobs are not run again, and jobs that were cut are continued.
"""
