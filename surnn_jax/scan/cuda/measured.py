"""Devices on which the kernel was measured: `auto` chooses it on these and no others."""

MEASURED: dict[str, tuple[float, float]] = {}
"""By the kind that JAX names, ``(fixed, rate)``: a training step takes ``fixed + rate · r`` of the
time of `compact` with all neurons open, r being the share of open neurons. Empty: the kernel has
not run on a GPU yet."""
