"""Switches: when each neuron updates. They know nothing of the cell or of Flax."""

from surnn_jax.names import lookup
from surnn_jax.switches.averages import running_averages
from surnn_jax.switches.event_switch import EVENT_FEATURES, Event, event, threshold
from surnn_jax.switches.fourier_switch import BALANCES, Fourier, Rhythm, fourier
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

HORIZON = 1024
"""The horizon, in steps, of a switch that is given by its name alone."""

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
the others what they are compared to."""


def get(switch: str | Switch | None) -> Switch | None:
    """The switch of that name with its default options and a horizon of :data:`HORIZON` steps.

    A switch passes through, and so does None (always open).

    Raises:
        ValueError: if there is no such switch.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.get("event") == switches.event(switches.HORIZON)
        True
    """
    if switch is None or isinstance(switch, Switch):
        return switch
    if switch in SWITCHES.values():
        name = next(name for name, make in SWITCHES.items() if make is switch)
        raise ValueError(f"a switch needs a horizon: {name}(horizon), or its name {name!r}")
    return lookup("switch", switch, SWITCHES)(HORIZON)


__all__ = [
    "BALANCES",
    "EVENT_FEATURES",
    "HORIZON",
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
    "get",
    "get_surrogate",
    "given",
    "phased",
    "rate_penalty",
    "running_averages",
    "sigmoid",
    "soft",
    "straight_through",
    "threshold",
    "triangular",
    "zoneout",
]
