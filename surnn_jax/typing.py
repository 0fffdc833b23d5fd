"""The axis letters and the few types that every module speaks of.

Shapes in docstrings are written with one letter an axis:

======  =====================================================================
letter  axis
======  =====================================================================
B       batch: examples that share parameters and nothing else
T       time: steps of a sequence
D       inputs: features of one input frame
H       features: the neurons of a layer
K       harmonics of a Fourier switch
E       event features: what an event switch reads of the input
======  =====================================================================

``[T, B, D]`` is time-major, the layout below ``layers/``; the Flax layers are batch-major
(``[B, T, D]``) unless told otherwise. ``[T, (B,) H]`` is a switch table: without ``B`` it is
shared by the batch.
"""

from typing import Any

import jax

Array = jax.Array
"""A JAX array (or a NumPy array where one is read, never written)."""

Params = dict[str, Any]
"""A plain nested dict of arrays."""

Carry = Any
"""A NamedTuple of arrays ``[B, H]``; the field ``h`` is what the unit puts out."""
