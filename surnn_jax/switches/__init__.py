"""Switches: when each neuron updates. They know nothing of the cell or of Flax."""

from surnn_jax.switches.event import READERS, Event, event
from surnn_jax.switches.fourier import Fourier, fourier
from surnn_jax.switches.gates import GATES, Gate, identity, sigmoid, soft, window
from surnn_jax.switches.gates import get as get_gate
from surnn_jax.switches.switch import Seen, Switch, for_neurons, rate_penalty

SWITCHES = {"fourier": fourier, "event": event}
"""Makers of switches by name: ``SWITCHES[name](horizon, **options)``."""

__all__ = [
    "GATES",
    "READERS",
    "SWITCHES",
    "Event",
    "Fourier",
    "Gate",
    "Seen",
    "Switch",
    "event",
    "for_neurons",
    "fourier",
    "get_gate",
    "identity",
    "rate_penalty",
    "sigmoid",
    "soft",
    "window",
]
