"""Parameters of our cells as Flax's have them."""

from typing import Any


def flax_params(name: str, params: Any) -> dict:
    """Those of a tanh unit, a GRU or an LSTM (`nn.LSTMCell` and `nn.OptimizedLSTMCell`)."""
    W, U, p = (params[kind] for kind in ("input", "recurrent", "vector"))
    if name == "tanh":
        return {"i": {"kernel": W["h"], "bias": p["b"]}, "h": {"kernel": U["h"]}}
    if name == "gru":
        return {
            **{f"i{g}": {"kernel": W[g], "bias": p[f"b_{g}"]} for g in "rzn"},
            **{f"h{g}": {"kernel": U[g]} for g in "rz"},
            "hn": {"kernel": U["n"], "bias": p["c_n"]},
        }
    return {
        **{f"i{g}": {"kernel": W[g]} for g in "ifgo"},
        **{f"h{g}": {"kernel": U[g], "bias": p[f"b_{g}"]} for g in "ifgo"},
    }
