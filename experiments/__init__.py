"""Experiments: absl-flag programs, run from the root of the repository.

Rooms, each of which imports only from those after it: the scripts in this folder, ``report``
(tables), ``tuning`` (searches), ``tasks`` (models and data), ``runner`` (what all tasks share),
``analysis`` (pictures and numbers of what a model did).

scripts > report > tuning > tasks > runner > analysis
"""
