"""Sweeps: many runs from one file, on a SLURM cluster or on this machine."""
