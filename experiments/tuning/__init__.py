"""Hyper-parameter search: protocols, the trial log, the run."""
