"""Prints what the machine is, line by line: python -m benchmarks.gpu.environment"""

import importlib
import importlib.util
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax", "optax",
    "orbax-checkpoint", "numpy", "torch", "triton", "tqdm", "nvidia-cudnn-cu13",
)  # fmt: skip


def main() -> None:
    """Prints it; nothing here may fail."""
    print("python", platform.python_version(), platform.platform())
    for name in _PACKAGES:
        try:
            print(name, version(name))
        except PackageNotFoundError:
            print(name, "is not installed")
    asked = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    for command in (["nvidia-smi", asked, "--format=csv,noheader"], ["nvcc", "--version"]):
        if shutil.which(command[0]) is None:
            print(command[0], "is not there")
            continue
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=15)
            print(command[0] + ":", " ".join(done.stdout.split()[-24:]))
        except (OSError, subprocess.TimeoutExpired) as error:
            print(command[0], "failed:", error)
    import jax

    device = jax.devices()[0]
    print("device:", len(jax.devices()), device.platform, device.device_kind)
    from surnn_jax import scan

    print("back ends:", ", ".join(scan.BACKENDS))
    for name in ("native", "cuda"):
        module = f"surnn_jax.scan.{name}"
        if importlib.util.find_spec(module) is None:
            print(f"back end {name}: there is none")
            continue
        try:
            library = importlib.import_module(f"{module}.library")
            print(f"back end {name}: available: {library.available()}")
        except Exception as error:
            print(f"back end {name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
