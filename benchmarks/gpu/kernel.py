"""Builds the CUDA kernel for the device that is here, unless it is built.

A part of the first minutes:

python -m benchmarks.gpu.kernel
"""

import importlib.util
import subprocess
import sys


def main() -> int:
    """Builds it; status 1 if that fails."""
    if importlib.util.find_spec("surnn_jax.scan.cuda") is None:
        print("there is no back end cuda")
        return 0
    from surnn_jax.scan.cuda import library

    if library.available():
        print("the CUDA kernel is there")
        return 0
    print(library.load(), flush=True)
    asked = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        kind = found.split()[0].replace(".", "")
    except (OSError, subprocess.SubprocessError, IndexError):
        print("no device says its architecture")
        return 1
    # A process of its own: this one has seen that there is none.
    command = [sys.executable, "-m", "surnn_jax.scan.cuda.build", f"--arch={kind}"]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
