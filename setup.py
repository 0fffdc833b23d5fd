"""Compiles the CPU kernel with the package; all else about the package is in pyproject.toml.

Where that is not possible - no compiler, no headers - the package installs without the kernel and
works: the back end `native` then says, once, why it runs as `masked`.
"""

import importlib.util
import os
import pathlib

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = pathlib.Path(__file__).parent / "surnn_jax" / "scan" / "native"


class BuildKernel(build_ext):
    """Hands over to the package's own build, which needs several instruction sets."""

    def get_ext_filename(self, fullname):
        # One name, whoever builds it: it is no Python module, and fits every version.
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext):
        if os.environ.get("SURNN_BUILD") == "0":
            raise CompileError("switched off by SURNN_BUILD=0")
        # By its file: importing the package would ask for all that it depends on.
        spec = importlib.util.spec_from_file_location("kernel_build", NATIVE / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            build.build(pathlib.Path(self.get_ext_fullpath(ext.name)))
        except build.Unavailable as error:
            raise CompileError(str(error)) from error


setup(
    # Optional: an error while it is built is a warning.
    ext_modules=[Extension("surnn_jax.scan.native._kernel", sources=[], optional=True)],
    cmdclass={"build_ext": BuildKernel},
)
