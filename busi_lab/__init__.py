"""Breast-ultrasound experiments: train, compare and apply models on BUSI."""

__version__ = "0.1.0"
