"""Every committed record still loads, and so does every parameter file; flags keep old names."""

import dataclasses
import json
import re
import shlex

import jax
import numpy as np
import pytest
from absl import flags as absl_flags

from experiments import lra, music, pixels, speech, synthetic, wikitext
from experiments.report.collect import RESULTS
from experiments.runner import flags, parameters, records
from experiments.runner.config import check, flag_of, from_record
from experiments.tasks import registry
from surnn_jax.train import CorruptCheckpointError

SCRIPTS = {
    "music": music, "speech": speech, "lra": lra, "pixels": pixels, "synthetic": synthetic,
    "wikitext": wikitext,
}  # fmt: skip
PATHS = [
    path
    for path in sorted(RESULTS.rglob("*.json"))
    if "inside" not in path.parts and path.name != "inside.json"
]


def config_of(path):
    record = records.read(path)
    return record, from_record(SCRIPTS[record.experiment].Config, record.config, path)


def test_every_committed_record_loads_and_would_be_written_as_it_is():
    assert len(PATHS) > 100
    for path in PATHS:
        record, config = config_of(path)
        assert records.to_fields(record) == json.loads(path.read_text()), path
        check(config)
        known = dataclasses.asdict(config)
        assert all(known[n] == v for n, v in record.config.items() if n in known), path


def test_the_commands_of_committed_runs_give_their_configurations():
    """Also by flags that have another name now."""
    odd = []
    for path in PATHS:
        record, config = config_of(path)
        if record.search is not None:
            continue
        script, values = SCRIPTS[record.experiment], absl_flags.FlagValues()
        flags.define(script.Config, script.PRESETS, values)
        # The recipe of those that were trained before switches were balanced.
        old = config.switch == "event" and not config.frozen and config.balance == "none"
        command = record.command
        if old and script is not music:
            command = re.sub("sugru-event(?=-cpu| |$)", "sugru-event-gradient", command)
        values(shlex.split(command)[2:])
        if config not in flags.parse_flags(script.Config, script.PRESETS, values).values():
            odd.append(path.name)
    # It has a number that no layer of it reads, and that its preset no longer sets.
    assert odd == ["selective-copy-sugru-event-cpu-0.json"]


def test_old_and_new_flag_are_one():
    def parsed(*given):
        values = absl_flags.FlagValues()
        flags.define(pixels.Config, pixels.PRESETS, values)
        values(["experiments.pixels", *given])
        (config,) = flags.parse_flags(pixels.Config, pixels.PRESETS, values).values()
        return config, flags.parse_options("experiments.pixels", pixels.Config, values).command

    old = parsed("--steps=7", "--rate=0.25", "--nobare")
    assert old == parsed("--max_length=7", "--update_rate=0.25", "--nono_residual")
    config, command = old
    assert (config.steps, config.rate, config.bare) == (7, 0.25, False)
    assert command.startswith("python -m experiments.pixels --update_rate=0.25 ")
    renamed = {flag_of(f) for f in dataclasses.fields(pixels.Config) if f.metadata["flag"]}
    assert {"max_length", "rate_penalty", "switch_lr_multiplier", "mlp_ratio"} <= renamed


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"harmonics": 3}, "a.json: its configuration has harmonics=3, .*: it is always 4"),
        ({"read": "pair"}, "has read='pair', .* always 'counts'"),
        ({"width": 3}, "its configuration has width, which no run has now"),
    ],
)
def test_a_configuration_that_no_run_has_now_is_refused(stored, words):
    with pytest.raises(ValueError, match=words):
        from_record(music.Config, stored, "a.json")
    same = from_record(music.Config, {"harmonics": 4, "read": "counts", "update_rate": 0.25})
    assert same == music.Config(rate=0.25)


def test_the_parameters_of_every_committed_winner_are_whole_and_fit_their_model():
    kept = [path for path in sorted(RESULTS.rglob(parameters.FILE)) if "surnn" not in path.parts]
    assert len(kept) == 35
    assert not list(RESULTS.rglob("checkpoints"))
    like = {}
    for path in kept:
        record, config = config_of(path.with_name(records.FILE))
        kind = (type(config), config.kinds, config.switch_name)
        if kind not in like:
            like[kind] = registry.load(record.experiment).outline(config)[1]
        params = parameters.read(path.parent, like[kind])
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == record.parameters, path


def test_the_parameters_of_the_surnn_suite_are_as_many_as_the_record_says():
    """Their models cannot be made here: that takes the data."""
    for path in (RESULTS / "surnn").rglob(parameters.FILE):
        with np.load(path) as archive:
            sizes = [archive[name].size for name in archive]
        assert sum(sizes) == records.read(path.with_name(records.FILE)).parameters, path


TREE = {"cell": {"w": np.arange(6, dtype=np.float32).reshape(2, 3) / 7}, "b": np.ones(3, np.int32)}


def test_parameters_come_back_bit_for_bit(tmp_path):
    path = parameters.write(TREE, tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == ["params.npz"]
    again = parameters.read(tmp_path, TREE)
    assert jax.tree.structure(again) == jax.tree.structure(TREE)
    for one, two in zip(jax.tree.leaves(TREE), jax.tree.leaves(again), strict=True):
        assert one.dtype == two.dtype
        assert one.tobytes() == np.asarray(two).tobytes()
    with np.load(path) as archive:  # NumPy alone can read it.
        assert sorted(archive) == ["b", "cell/w"]
    with pytest.raises(ValueError, match=r"params\.npz holds cell/w: float32\[2, 3\], but this"):
        parameters.read(tmp_path, {**TREE, "cell": {"w": np.zeros((3, 2), np.float32)}})


def test_any_damaged_byte_of_a_parameter_file_is_an_error_that_names_it(tmp_path):
    path = parameters.write(TREE, tmp_path)
    whole = path.read_bytes()
    damaged = [whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :] for place in
               range(len(whole))]  # fmt: skip
    for content in [*damaged, whole[:-1], whole[:100], b"", whole + b"0"]:
        path.write_bytes(content)
        with pytest.raises(CorruptCheckpointError, match=r"params\.npz is damaged"):
            parameters.read(tmp_path, TREE)
