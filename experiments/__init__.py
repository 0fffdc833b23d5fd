"""Experiments: absl-flag programs, run from the root of the repository.

Rooms, each of which imports only from those after it: the scripts in this folder, ``report``
(tables), ``tuning`` (searches), ``tasks`` (models and data), ``runner`` (what all tasks share),
``analysis`` (figures, and numbers of a model's switches and gradients).

scripts > report > tuning > tasks > runner > analysis
"""
