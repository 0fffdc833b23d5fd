"""Compiles the CPU kernel with the package; all else about the package is in pyproject.toml.

Where that is not possible - no compiler, no headers - the package installs without the kernel and
works: the back end `native` then says, once, why it runs as `masked`. In pip's isolated environment
the headers are those of the newest jaxlib; a kernel built with them runs under an older one as well
(src/ffi.cc).
"""

import importlib.util
import os
import pathlib
import shutil

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = pathlib.Path(__file__).parent / "surnn_jax" / "scan" / "native"


class BuildKernel(build_ext):
    """Hands over to the package's own build, which needs several instruction sets."""

    def get_ext_filename(self, fullname):
        # One name, whoever builds it: it is no Python module, and fits every version.
        return os.path.join(*fullname.split(".")) + ".so"

    def run(self):
        super().run()
        if self.inplace:  # as for `pip install -e`: the library is copied, its manifest is not
            for made in self._made(self.extensions[0]):
                if made.exists():
                    shutil.copyfile(made, NATIVE / made.name)

    def _made(self, ext):
        """The library and its manifest."""
        library = pathlib.Path(self.build_lib, self.get_ext_filename(ext.name))
        return library, library.with_suffix(".json")

    def build_extension(self, ext):
        # All that lies in build/ is packed, also what an earlier build left there.
        for made in self._made(ext):
            made.unlink(missing_ok=True)
        if os.environ.get("SURNN_BUILD") == "0":
            raise CompileError("switched off by SURNN_BUILD=0")
        # By its file: importing the package would ask for all that it depends on.
        spec = importlib.util.spec_from_file_location("kernel_build", NATIVE / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            build.build(self._made(ext)[0])
        except build.Unavailable as error:
            raise CompileError(str(error)) from error


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python: the kernel is loaded by JAX, not by Python."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


setup(
    # Optional: an error while it is built is a warning.
    ext_modules=[Extension("surnn_jax.scan.native._kernel", sources=[], optional=True)],
    cmdclass={"bdist_wheel": PlatformWheel, "build_ext": BuildKernel},
)
