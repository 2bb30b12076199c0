"""Trained runs applied to scans: which files, what is found in them, what is written, what speaks for it."""
