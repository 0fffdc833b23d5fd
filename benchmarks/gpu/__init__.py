"""What a GPU will be asked to do, counted without one: programs compiled for described devices.

`devices/` describes them, from their makers' public figures. :mod:`.ahead` compiles a function for
one and returns what was compiled, :mod:`.launches` counts in it, :mod:`.programs` lists what
:mod:`benchmarks.gpu_check` compiles.
"""
