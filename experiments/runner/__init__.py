"""Shared by all experiments: the contract, flags, launching, records."""
