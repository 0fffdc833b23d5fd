"""Experiments: absl-flag entry points, run from the root of the repository."""
