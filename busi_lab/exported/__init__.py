"""Runs as files that need no torch: what such a directory holds, and how its network is applied."""
