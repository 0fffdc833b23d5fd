"""PyTorch's process: python -m benchmarks.torch_layer GIVEN.npz FOUND.npz LAYER DEVICE THREADS

LAYER is GRU or LSTM, DEVICE cpu or cuda, where it is cuDNN that computes. Does a training step for
every line ``step`` on its input, writes loss and gradients of the last one for ``answer``, and says
``done`` after each and when it is ready. Imports no JAX.
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


def main(given: str, found: str, layer: str, device: str, threads: str) -> None:
    """Serves until its input ends."""
    torch.set_num_threads(int(threads))
    with np.load(given) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays}
    x, target = tensors["x"].requires_grad_(), tensors["target"]
    module = getattr(torch.nn, layer)(x.shape[-1], target.shape[-1]).to(device)
    leaves = {name: getattr(module, attribute) for name, attribute in _PARAMETERS.items()}
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(tensors[name])
    leaves["x"] = x
    print("done", flush=True)
    for line in sys.stdin:
        if line == "step\n":
            loss = torch.mean(torch.square(module(x)[0] - target))
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            if device == "cuda":
                torch.cuda.synchronize()
        else:
            arrays = {k: g.cpu().numpy() for k, g in zip(leaves, gradients, strict=True)}
            np.savez(found, loss=loss.detach().cpu().numpy(), **arrays)
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
