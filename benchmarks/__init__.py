"""Benchmarks: what an update costs, by the clock and in bytes. One program a question:

    skip_scan    a training step against the update rate: the masked scan against ours
    dense_scan   a training step where everything updates: Flax and PyTorch against ours
    minimal      a training step of a unit whose candidate does not read the state
    memory       bytes kept between forward and backward pass
    inference    one long sequence, forward alone
    streaming    one sequence step by step
    data_feed    making batches of prepared data, and its memory

Each writes one JSON object a line, and a table for the reader on stderr. Those of data_feed have
fields of their own and want a file of their own. `python -m
benchmarks.plot` draws such lines, `python -m benchmarks.targets` compares them with this project's
targets.
"""
