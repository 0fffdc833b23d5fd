"""The back ends by name."""

from surnn_jax.scan import compact, cuda, masked, native, pallas, parallel, reference, rows
from surnn_jax.scan.spec import Backend

BACKENDS: dict[str, Backend] = {
    "reference": reference,
    "masked": masked,
    "compact": compact,
    "rows": rows,
    "parallel": parallel,
    "native": native,
    "cuda": cuda,
    "pallas": pallas,
}
"""Every back end by name; they differ in speed only (:class:`surnn_jax.scan.spec.Backend`)."""
