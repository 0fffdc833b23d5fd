"""Switches: when each neuron updates. They know nothing of the cell or of Flax."""

from surnn_jax.switches.event import EVENT_FEATURES, Event, event, threshold
from surnn_jax.switches.fourier import BALANCES, Fourier, Rhythm, fourier
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
from surnn_jax.switches.surrogates import (
    SURROGATES,
    Surrogate,
    given,
    sigmoid,
    soft,
    straight_through,
    triangular,
)
from surnn_jax.switches.surrogates import get as get_surrogate
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
    "BALANCES",
    "EVENT_FEATURES",
    "SURROGATES",
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
    "get_surrogate",
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
