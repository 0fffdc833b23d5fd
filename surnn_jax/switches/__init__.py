"""Switches: when each neuron updates. They know nothing of the cell or of Flax."""

from surnn_jax.switches.event import READERS, Event, event, threshold
from surnn_jax.switches.fourier import Fourier, fourier
from surnn_jax.switches.gates import (
    GATES,
    Surrogate,
    given,
    sigmoid,
    soft,
    straight_through,
    triangular,
)
from surnn_jax.switches.gates import get as get_gate
from surnn_jax.switches.rhythm import Rhythm
from surnn_jax.switches.schedules import (
    Clockwork,
    Every,
    Phased,
    Zoneout,
    clockwork,
    every,
    phased,
    zoneout,
)
from surnn_jax.switches.switch import Switch, SwitchInputs, for_neurons, rate_penalty

SWITCHES = {
    "fourier": fourier,
    "event": event,
    "every": every,
    "clockwork": clockwork,
    "phased": phased,
    "zoneout": zoneout,
    "threshold": threshold,
}
"""Makers of switches by name: ``SWITCHES[name](horizon, **options)``. The first two are suRNN's,
the others what they are compared to; an option that a switch does not have is an error."""

__all__ = [
    "GATES",
    "READERS",
    "SWITCHES",
    "Clockwork",
    "Event",
    "Every",
    "Fourier",
    "Phased",
    "Rhythm",
    "Surrogate",
    "Switch",
    "SwitchInputs",
    "Zoneout",
    "clockwork",
    "event",
    "every",
    "for_neurons",
    "fourier",
    "get_gate",
    "given",
    "phased",
    "rate_penalty",
    "sigmoid",
    "soft",
    "straight_through",
    "threshold",
    "triangular",
    "zoneout",
]
