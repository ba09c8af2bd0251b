"""Sweeps on a cluster: the top floor, which may use every floor below and is used by none."""
