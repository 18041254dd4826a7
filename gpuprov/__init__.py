"""Provision, verify and train on fleets of machines with NVIDIA GPUs."""

__version__ = "0.1.0"
