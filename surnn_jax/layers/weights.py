"""Weights from and for other libraries: Flax, PyTorch and Keras.

Each function takes or gives what the other library calls the parameters of one layer. Ours are
``{"cell": …}``, the parameters of :class:`.Recurrent` and :class:`.UnitCell` without a switch. Add
those of the switch for one that has one: ``{**params, **from_torch(state, "gru")}``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surnn_jax.names import lookup
from surnn_jax.typing import Params

__all__ = ["from_flax", "from_keras", "from_torch", "to_flax", "to_keras", "to_torch"]

_GATES = {"tanh": "h", "gru": "rzn", "gru_before": "rzn", "lstm": "ifgo"}
_KERAS = {"tanh": "h", "gru": "zrn", "gru_before": "zrn", "lstm": "ifgo"}

_Parts = dict[str, np.ndarray]


def from_flax(params: Mapping[str, Any], cell: str = "gru") -> Params:
    """Parameters of a Flax cell as ours.

    Args:
        params: of `nn.SimpleCell`, `nn.GRUCell`, `nn.LSTMCell` or `nn.OptimizedLSTMCell`.
        cell: ``tanh``, ``gru`` or ``lstm``.

    Raises:
        ValueError: no such cell here.

    Examples:
        >>> import flax.linen as nn
        >>> from surnn_jax.layers import Recurrent, weights
        >>> x = jax.random.normal(jax.random.key(0), (2, 5, 3))
        >>> theirs = nn.RNN(nn.GRUCell(4))
        >>> variables = theirs.init(jax.random.key(1), x)
        >>> ours = weights.from_flax(variables["params"]["cell"], "gru")
        >>> y = Recurrent("gru", 4).apply({"params": ours}, x)
        >>> bool(jnp.allclose(y, theirs.apply(variables, x), atol=1e-6))
        True
    """
    gates = _gates(cell, ("tanh", "gru", "lstm"))

    def parts(side: str, leaf: str) -> _Parts:
        names = {g: side if cell == "tanh" else side + g for g in gates}
        return {g: np.asarray(params[n][leaf]) for g, n in names.items() if leaf in params[n]}

    return _ours(cell, *(parts(side, leaf) for leaf in ("kernel", "bias") for side in "ih"))


def to_flax(params: Params, cell: str = "gru") -> dict[str, Any]:
    """The inverse of :func:`from_flax`, for `nn.LSTMCell` in the case of ``lstm``.

    Raises:
        ValueError: no such cell here.

    Examples:
        >>> from surnn_jax.layers import Recurrent, weights
        >>> variables = Recurrent("lstm", 4).init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> sorted(weights.to_flax(variables["params"], "lstm")["hf"])
        ['bias', 'kernel']
    """
    gates = _gates(cell, ("tanh", "gru", "lstm"))
    own = params["cell"]
    found: dict[str, Any] = {}
    for g in gates:
        i, h = ("i", "h") if cell == "tanh" else ("i" + g, "h" + g)
        found[i], found[h] = {"kernel": own["input"][g]}, {"kernel": own["recurrent"][g]}
        bias = own["vector"]["b" if cell == "tanh" else f"b_{g}"]
        found[h if cell == "lstm" else i]["bias"] = bias
    if cell == "gru":
        found["hn"]["bias"] = own["vector"]["c_n"]
    return found


def from_torch(
    state: Mapping[str, Any], cell: str = "gru", *, layer: int = 0, reverse: bool = False
) -> Params:
    """One layer and direction of a PyTorch `RNN`, `GRU` or `LSTM` as ours.

    Args:
        state: its `state_dict()`, of tensors or arrays.
        cell: ``tanh``, ``gru`` or ``lstm``.
        layer: which one, counted from 0.
        reverse: the layer that reads from the end, for ``Recurrent(…, reverse=True)``.

    Raises:
        ValueError: no such cell here, or no such layer there.

    Examples:
        >>> from surnn_jax.layers import weights
        >>> state = {f"weight_{kind}_l0": np.ones((12, 4)) for kind in ("ih", "hh")}  # no biases
        >>> weights.from_torch(state, "gru")["cell"]["input"]["z"].shape
        (4, 4)
    """
    gates = _gates(cell, ("tanh", "gru", "lstm"))
    end = f"_l{layer}" + "_reverse" * reverse
    if f"weight_ih{end}" not in state:
        raise ValueError(f"no weight_ih{end} in it; it has: {', '.join(sorted(state))}")

    def parts(name: str) -> _Parts:
        if name not in state:
            return {}
        return _split(np.asarray(state[name]).T, gates)

    names = (f"{leaf}_{side}{end}" for leaf in ("weight", "bias") for side in ("ih", "hh"))
    return _ours(cell, *map(parts, names))


def to_torch(
    params: Params, cell: str = "gru", *, layer: int = 0, reverse: bool = False
) -> dict[str, np.ndarray]:
    """The inverse of :func:`from_torch`: arrays for `load_state_dict`, made tensors.

    Examples:
        >>> from surnn_jax.layers import Recurrent, weights
        >>> variables = Recurrent("gru", 4).init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> weights.to_torch(variables["params"], "gru")["weight_ih_l0"].shape
        (12, 3)
    """
    gates = _gates(cell, ("tanh", "gru", "lstm"))
    own, end = params["cell"], f"_l{layer}" + "_reverse" * reverse
    biases, hidden = _biases(own, cell, gates)
    return {
        f"weight_ih{end}": _join(own["input"], gates).T,
        f"weight_hh{end}": _join(own["recurrent"], gates).T,
        f"bias_ih{end}": _join(biases, gates),
        f"bias_hh{end}": _join(hidden, gates),
    }


def from_keras(arrays: Sequence[Any], cell: str = "gru") -> Params:
    """The arrays of a Keras `SimpleRNN`, `GRU` or `LSTM` as ours.

    Args:
        arrays: what `layer.get_weights()` gives: kernel, recurrent kernel and, if there is one,
            bias.
        cell: ``tanh``, ``gru`` (`reset_after=True`, the default of Keras), ``gru_before``
            (`reset_after=False`) or ``lstm``.

    Raises:
        ValueError: no such cell here.

    Examples:
        >>> from surnn_jax.layers import weights
        >>> arrays = [np.ones((3, 12)), np.ones((4, 12)), np.zeros((2, 12))]
        >>> weights.from_keras(arrays, "gru")["cell"]["recurrent"]["r"].shape
        (4, 4)
    """
    gates = _gates(cell, tuple(_KERAS), _KERAS)
    kernel, recurrent, *rest = (np.asarray(array) for array in arrays)
    bias = np.atleast_2d(rest[0]) if rest else ()
    split = [_split(array, gates) for array in (kernel, recurrent, *bias)]
    return _flipped(_ours(cell, *split), cell)


def to_keras(params: Params, cell: str = "gru") -> list[np.ndarray]:
    """The inverse of :func:`from_keras`: for `layer.set_weights`.

    Examples:
        >>> from surnn_jax.layers import Recurrent, weights
        >>> variables = Recurrent("gru", 4).init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> [array.shape for array in weights.to_keras(variables["params"], "gru")]
        [(3, 12), (4, 12), (2, 12)]
    """
    gates = _gates(cell, tuple(_KERAS), _KERAS)
    own = _flipped(params, cell)["cell"]
    biases, hidden = _biases(own, cell, gates)
    bias = _join(biases, gates)
    if cell == "gru":
        bias = np.stack([bias, _join(hidden, gates)])
    return [_join(own["input"], gates), _join(own["recurrent"], gates), bias]


def _gates(cell: str, known: Sequence[str], table: Mapping[str, str] = _GATES) -> str:
    return lookup("cell of another library", cell, {name: table[name] for name in known})


def _split(array: np.ndarray, gates: str) -> _Parts:
    return dict(zip(gates, np.split(array, len(gates), axis=-1), strict=True))


def _join(parts: Mapping[str, Any], gates: str) -> np.ndarray:
    return np.concatenate([np.asarray(parts[g]) for g in gates], axis=-1)


def _ours(
    cell: str,
    inputs: _Parts,
    recurrent: _Parts,
    bias: _Parts | None = None,
    hidden: _Parts | None = None,
) -> Params:
    """Our tree, from kernels and biases by gate; what is missing is 0."""
    bias, hidden, vector = bias or {}, hidden or {}, {}
    for g in inputs:
        zero = np.zeros(inputs[g].shape[-1], inputs[g].dtype)
        own, other = bias.get(g, zero), hidden.get(g, zero)
        if cell == "gru" and g == "n":  # The reset gate scales the second one.
            vector |= {"b_n": own, "c_n": other}
        else:
            vector["b" if cell == "tanh" else f"b_{g}"] = own + other
    return {"cell": {"input": inputs, "recurrent": recurrent, "vector": vector}}


def _biases(own: Params, cell: str, gates: str) -> tuple[_Parts, _Parts]:
    """The biases by gate, and those within the reset gate."""
    vector = own["vector"]
    biases = {g: np.asarray(vector["b" if cell == "tanh" else f"b_{g}"]) for g in gates}
    hidden = {g: np.zeros_like(bias) for g, bias in biases.items()}
    if cell == "gru":
        hidden["n"] = np.asarray(vector["c_n"])
    return biases, hidden


def _flipped(params: Params, cell: str) -> Params:
    """`gru_before` with the update gate the other way round: σ(-a) = 1 - σ(a)."""
    if cell != "gru_before":
        return params
    own = {kind: dict(leaves) for kind, leaves in params["cell"].items()}
    for leaves, name in ((own["input"], "z"), (own["recurrent"], "z"), (own["vector"], "b_z")):
        leaves[name] = -np.asarray(leaves[name])
    return {"cell": own}
