"""The process of `torch.nn.GRU`: python -m benchmarks.torch_gru GIVEN.npz FOUND.npz THREADS

Does a training step for every line ``step`` on its input, writes loss and gradients of the last
one for ``answer``, and says ``done`` after each and when it is ready. Imports no JAX.
"""

import sys

import numpy as np
import torch

_PARAMETERS = {
    "input": "weight_ih_l0",
    "recurrent": "weight_hh_l0",
    "input_bias": "bias_ih_l0",
    "recurrent_bias": "bias_hh_l0",
}


def main(given: str, found: str, threads: str) -> None:
    """Serves until its input ends."""
    torch.set_num_threads(int(threads))
    with np.load(given) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    x, target = tensors["x"].requires_grad_(), tensors["target"]
    layer = torch.nn.GRU(x.shape[-1], target.shape[-1])
    leaves = {name: getattr(layer, attribute) for name, attribute in _PARAMETERS.items()}
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(tensors[name])
    leaves["x"] = x
    print("done", flush=True)
    for line in sys.stdin:
        if line == "step\n":
            loss = torch.mean(torch.square(layer(x)[0] - target))
            gradients = torch.autograd.grad(loss, list(leaves.values()))
        else:
            arrays = {k: g.numpy() for k, g in zip(leaves, gradients, strict=True)}
            np.savez(found, loss=loss.detach().numpy(), **arrays)
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
