"""Runs as files whose network needs no torch: what such a directory holds, and how its network is applied."""
