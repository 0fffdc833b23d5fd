"""The equations once more, in NumPy and float64: one example, one step, one neuron's sum at a time.

Written from the papers and the docstrings, not from the code, and as plainly as can be.
"""

from typing import NamedTuple

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _tanh(W, U, p, state, x):
    (h,) = state
    return (np.tanh(x @ W["h"] + h @ U["h"] + p["b"]),)


def _gru(W, U, p, state, x):
    (h,) = state
    r = sigmoid(x @ W["r"] + h @ U["r"] + p["b_r"])
    z = sigmoid(x @ W["z"] + h @ U["z"] + p["b_z"])
    n = np.tanh(x @ W["n"] + p["b_n"] + r * (h @ U["n"] + p["c_n"]))
    return ((1 - z) * n + z * h,)


def _gru_before(W, U, p, state, x):
    (h,) = state
    r = sigmoid(x @ W["r"] + h @ U["r"] + p["b_r"])
    z = sigmoid(x @ W["z"] + h @ U["z"] + p["b_z"])
    n = np.tanh(x @ W["n"] + (r * h) @ U["n"] + p["b_n"])
    return ((1 - z) * h + z * n,)


def _lstm(W, U, p, state, x):
    c, h = state
    i = sigmoid(x @ W["i"] + h @ U["i"] + p["b_i"])
    f = sigmoid(x @ W["f"] + h @ U["f"] + p["b_f"])
    o = sigmoid(x @ W["o"] + h @ U["o"] + p["b_o"])
    c = f * c + i * np.tanh(x @ W["g"] + h @ U["g"] + p["b_g"])
    return c, o * np.tanh(c)


def _lstm_peephole(W, U, p, state, x):
    c, h = state
    i = sigmoid(x @ W["i"] + h @ U["i"] + p["v_i"] * c + p["b_i"])
    f = sigmoid(x @ W["f"] + h @ U["f"] + p["v_f"] * c + p["b_f"])
    c = f * c + i * np.tanh(x @ W["g"] + h @ U["g"] + p["b_g"])
    o = sigmoid(x @ W["o"] + h @ U["o"] + p["v_o"] * c + p["b_o"])
    return c, o * np.tanh(c)


def _min_gru(W, U, p, state, x):
    (h,) = state
    z = sigmoid(x @ W["z"] + p["b_z"])
    return ((1 - z) * h + z * (x @ W["n"] + p["b_n"]),)


def _min_lstm(W, U, p, state, x):
    (h,) = state
    f, i = sigmoid(x @ W["f"] + p["b_f"]), sigmoid(x @ W["i"] + p["b_i"])
    return (f / (f + i) * h + i / (f + i) * (x @ W["n"] + p["b_n"]),)


def _mgu(W, U, p, state, x):
    (h,) = state
    f = sigmoid(x @ W["f"] + h @ U["f"] + p["b_f"])
    n = np.tanh(x @ W["n"] + p["b_n"] + f * (h @ U["n"] + p["c_n"]))
    return ((1 - f) * n + f * h,)


def _ind_rnn(W, U, p, state, x):
    (h,) = state
    return (np.maximum(x @ W["h"] + p["v"] * h + p["b"], 0),)


def _rg_lru(W, U, p, state, x):
    (h,) = state
    r, i = sigmoid(x @ W["r"] + p["b_r"]), sigmoid(x @ W["i"] + p["b_i"])
    a = (1 / (1 + np.exp(p["decay"]))) ** (8 * r)
    return (a * h + np.sqrt(1 - a**2) * i * (x @ W["x"]),)


def _slstm(W, U, p, state, x):
    c, n, m, h = state
    i, f, g, o = (x @ W[k] + h @ U[k] + p[f"b_{k}"] for k in "ifgo")
    kept = np.log(sigmoid(f)) + m
    new = np.maximum(kept, i)
    c = np.exp(kept - new) * c + np.exp(i - new) * np.tanh(g)
    n = np.exp(kept - new) * n + np.exp(i - new)
    return c, n, new, sigmoid(o) * c / n


def _norm(a):
    return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)


def _gru_layer_norm(W, U, p, state, x):
    (h,) = state
    z = {k: p[f"w_{k}"] * _norm(x @ W[k]) for k in "rzn"}
    u = {k: p[f"u_{k}"] * _norm(h @ U[k]) for k in "rzn"}
    r, keep = (sigmoid(z[k] + u[k] + p[f"b_{k}"]) for k in "rz")
    n = np.tanh(z["n"] + p["b_n"] + r * (u["n"] + p["c_n"]))
    return ((1 - keep) * n + keep * h,)


def _lstm_layer_norm(W, U, p, state, x):
    c, h = state
    i, f, g, o = (
        p[f"w_{k}"] * _norm(x @ W[k]) + p[f"u_{k}"] * _norm(h @ U[k]) + p[f"b_{k}"] for k in "ifgo"
    )
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(p["w_c"] * _norm(c) + p["b_c"])


_STEPS = {
    "mgu": _mgu,
    "ind_rnn": _ind_rnn,
    "rg_lru": _rg_lru,
    "slstm": _slstm,
    "gru_layer_norm": _gru_layer_norm,
    "lstm_layer_norm": _lstm_layer_norm,
    "tanh": _tanh,
    "gru": _gru,
    "gru_before": _gru_before,
    "lstm": _lstm,
    "lstm_peephole": _lstm_peephole,
    "min_gru": _min_gru,
    "min_lstm": _min_lstm,
}


def step(cell: str, params, state, x):
    """The candidate state, a tuple in the order of the carry's fields."""
    return _STEPS[cell](params["input"], params.get("recurrent"), params["vector"], state, x)


def value(gate, a):
    """How far a switch opens."""
    return sigmoid(gate.shape * a) if gate.name == "soft" else (a > 0).astype(a.dtype)


def slope(gate, a):
    """What stands for the derivative of :func:`value`."""
    if gate.name == "triangular":
        return np.maximum(0, 1 - np.abs(a) / gate.shape) / gate.shape
    if gate.name == "straight_through":
        return np.ones_like(a)
    return gate.shape * sigmoid(gate.shape * a) * sigmoid(-gate.shape * a)


def _rhythm(switch, p, t):
    total = 0.0
    for k in range(switch.harmonics):
        # theta is the angular frequency in units of 1 / horizon.
        total = total + p["alpha"][k] * np.sin(p["theta"][k] / switch.horizon * t + p["phi"][k])
    return total


def _remember(switch, x, previous, n):
    """What is kept of the inputs after one of them, n steps after the start."""
    averages = getattr(switch, "averages", ())
    if not averages:
        return x
    shares = [1 / min(n + 1, constant) for constant in averages]
    parts = np.split(previous, len(averages))
    pairs = zip(shares, parts, strict=True)
    return np.concatenate([share * x + (1 - share) * old if n else x for share, old in pairs])


def _read(switch, x, previous):
    if switch.event_features == "input":
        return x
    if switch.event_features == "trace":
        return np.concatenate([x, *(x - old for old in np.split(previous, len(switch.averages)))])
    if switch.event_features == "pair":
        return np.concatenate([x, previous])
    rises = sum(max(now - old, 0) for now, old in zip(x, previous, strict=True))
    falls = sum(max(old - now, 0) for now, old in zip(x, previous, strict=True))
    return np.array([x.sum(), rises, falls])


class Result(NamedTuple):
    """As :class:`surnn_jax.Run`, arrays in the order in which the steps are run.

    ``a`` are the logits (zero where nobody looks), ``scale`` what the event switch divides by,
    ``kept`` the steps that are looked at, ``end``, ``clock`` and ``previous`` the final carry.
    """

    outputs: np.ndarray
    carries: tuple
    end: tuple
    clock: np.ndarray
    previous: np.ndarray
    rate: float
    a: np.ndarray | None
    scale: np.ndarray | float
    kept: np.ndarray


def logits(switch, params, x, clock):
    """Normalised logits ``[T, B, H]`` of a run from time `clock` on."""
    width = params["b"].shape[0]
    params = {"switch": params, "cell": None}
    rest = (np.zeros((x.shape[1], width)),)
    return run(None, switch, params, x, rest, None, clock=clock).a


def run(
    cell,
    switch,
    params,
    x,
    start,
    reset_carry,
    *,
    lengths=None,
    mask=None,
    resets=None,
    reverse=False,
    clock=0,
    previous=None,
    opening=None,
    scale=None,
):
    """Runs a unit over ``x [T, B, D]``, one example after the other.

    ``start`` is a tuple of ``[B, H]``, ``reset_carry`` of ``[H]``. ``opening`` replaces the gate by
    another function of all logits and ``scale`` fixes that of the event switch: with these,
    finite differences see what the surrogate gradient is defined to be. ``opening`` must equal
    the gate at the parameters where differences are taken.
    """
    steps, batch, width = x.shape
    features = start[0].shape[-1]
    clock = np.array(np.broadcast_to(clock, (batch,)))
    if previous is None:
        previous = np.zeros((batch, width * max(1, len(getattr(switch, "averages", ())))))
    previous = np.array(previous)
    raw = np.zeros((steps, batch, features))
    seen = np.zeros((steps, batch, width))
    kept = np.zeros((steps, batch), bool)
    restart = np.zeros((steps, batch), bool)
    ends = np.full(batch, steps) if lengths is None else np.minimum(lengths, steps)

    for b in range(batch):
        places = range(ends[b])
        for j, t in enumerate(reversed(places) if reverse else places):
            if resets is not None:
                # Backwards, a sequence is entered at the step before the next one's first.
                restart[j, b] = (t + 1 in places and resets[t + 1, b]) if reverse else resets[t, b]
            if restart[j, b]:
                clock[b], previous[b] = 0, 0
            kept[j, b] = mask is None or mask[t, b]
            if kept[j, b]:
                seen[j, b] = x[t, b]
            if switch is not None:
                p = params["switch"]
                raw[j, b] = _rhythm(switch, p, clock[b]) + p["b"]
                if "v" in p:
                    raw[j, b] += _read(switch, seen[j, b], previous[b]) @ p["v"]
            previous[b] = _remember(switch, seen[j, b], previous[b], clock[b])
            clock[b] += 1

    a, g, rate = None, np.ones_like(raw), 1.0
    if switch is not None:
        if "v" not in params["switch"]:
            scale = np.sqrt((params["switch"]["alpha"] ** 2).sum(0))
        elif not switch.gate.hard:
            scale = 1.0
        elif scale is None:
            scale = raw[kept].std(0) if kept.any() else 1.0
        a = raw / scale
        g = value(switch.gate, a) if opening is None else opening(a)
        rate = g[kept].mean() if kept.any() else 0.0
        if opening is not None and switch.gate.gradient_fraction < 1:
            # The first rows teach the switch, and stand for all; the rate is everyone's.
            few = int(np.ceil(switch.gate.gradient_fraction * batch))
            lesson = (np.arange(batch) < few)[:, None] * batch / few
            g = value(switch.gate, a) + lesson * (g - value(switch.gate, a))

    outputs = np.zeros_like(raw)
    carries = tuple(np.zeros_like(raw) for _ in start)
    end = tuple(np.array(field) for field in start)
    for b in range(batch):
        state = tuple(field[b] for field in start)
        for j in range(steps):
            if restart[j, b]:
                state = reset_carry
            if kept[j, b] and cell is not None:
                new = step(cell, params["cell"], state, seen[j, b])
                state = tuple(h + g[j, b] * (f - h) for f, h in zip(new, state, strict=True))
            for field, now in zip(carries, state, strict=True):
                field[j, b] = now
            if j < ends[b]:
                outputs[j, b] = state[-1]  # h is the last field of every carry
        for field, now in zip(end, state, strict=True):
            field[b] = now
    return Result(outputs, carries, end, clock, previous, rate, a, scale, kept)
