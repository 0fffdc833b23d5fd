"""Every public class and function has an example in its docstring, and the examples run."""

import contextlib
import doctest
import importlib
import inspect
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PACKAGES = (
    "surnn_jax",
    "surnn_jax.cells",
    "surnn_jax.switches",
    "surnn_jax.scan",
    "surnn_jax.layers",
    "surnn_jax.layers.export",
    "surnn_jax.layers.weights",
    "surnn_jax.nnx",
    "surnn_jax.train",
    "data",
)
ASSUMED = {"jax": jax, "jnp": jnp, "np": np}
"""What an example may use without importing it; the API reference says so."""


def public_names(package: str) -> list[str]:
    module = importlib.import_module(package)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == package and name[0] != "_"
    ]


def public_objects() -> dict[str, object]:
    """Every public class and function once, by its shortest public name."""
    found = {}
    for package in PACKAGES:
        for name in public_names(package):
            value = getattr(importlib.import_module(package), name)
            if (inspect.isclass(value) or inspect.isfunction(value)) and value not in set(
                found.values()
            ):
                found[f"{package}.{name}"] = value
    return found


OBJECTS = public_objects()
CHEAP = {"surnn_jax.layers.Options"}
SLOW = {"surnn_jax.Unit", "surnn_jax.step"} | {
    f"surnn_jax.switches.{name}" for name in ("Every", "Rhythm", "event", "fourier")
}


def marked(name: str):
    """An `init` outside `jit` compiles many programs, that of a layer a hundred."""
    layer = name.startswith(("surnn_jax.layers.", "surnn_jax.nnx."))
    slow = name in SLOW or (layer and name not in CHEAP)
    return pytest.param(name, marks=pytest.mark.full) if slow else name


@pytest.mark.parametrize("name", [marked(name) for name in OBJECTS])
def test_the_example_of(name):
    value = OBJECTS[name]
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(value) or "", dict(ASSUMED), name, inspect.getsourcefile(value), 0
    )
    assert example.examples, "no example in the docstring"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    told = io.StringIO()
    # As in the program of a user, who has the defaults of JAX.
    defaults = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with contextlib.redirect_stderr(io.StringIO()), defaults[0], defaults[1]:
        runner.run(example, out=told.write)
    assert not runner.failures, told.getvalue()
