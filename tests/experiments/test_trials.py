"""Runs that are not what was meant: trials that diverge, other data on resumption, idle flags."""

import pytest
from absl import flags as absl_flags

from experiments import lra, music, pixels, speech, synthetic, wikitext
from experiments.runner import flags, launch
from experiments.runner.experiment import Prepared, identity_of
from experiments.runner.flags import LaunchOptions
from experiments.tasks import registry
from experiments.tasks.sequence.config import STATE_SPACES
from experiments.tuning import jobs
from surnn_jax import cells
from surnn_jax.layers import mixers


@pytest.mark.full
def test_a_trial_that_diverges_in_validation_is_done_and_never_wins(tmp_path):
    """Every step is finite. Such a trial failed each time, and its line could not go on."""
    config = synthetic.Config(
        "adding", layers="gru", features=4, steps=8, examples=8, evaluated=8, batch_size=8,
        max_epochs=1, schedule="constant", learning_rate=1e38,
    )  # fmt: skip
    prepared = registry.load("synthetic").prepare(config, None)
    options = LaunchOptions(trial=True)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        launch.train_run("synthetic", config, prepared, tmp_path, options)
    assert not (tmp_path / "nonfinite.jsonl").exists()
    job = jobs.Job((), tmp_path, 0.25, jobs._plain(config))
    assert jobs._figure(job) == float("inf")


@pytest.mark.parametrize(
    ("name", "config", "usual", "other"),
    [
        ("speech", speech.Config("timit"), "original", "sample"),
        ("lra", lra.Config("listops"), "made here", "original"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(name, config, usual, other):
    """As when the originals were found after it had begun."""

    def identity(data):
        return identity_of(name, config, Prepared(*[None] * 8, data=data))

    before = identity({"kind": usual, "name": "x"})
    assert before == identity(None)  # Runs begun by older versions go on.
    assert identity({"kind": other, "name": "x"}) == {**before, "data_read": other}


def test_the_configuration_knows_the_layers_that_are_no_cells():
    """It cannot import them: `--help` would wait for JAX."""
    others = {name for name in mixers.names() if name.removeprefix("su") not in cells.CELLS}
    assert others == {"attention", *STATE_SPACES}


@pytest.mark.parametrize(
    ("script", "given", "words"),
    [
        (pixels, ("--layers=gru", "--switch=event"), "--switch=event has no effect.*=sugru"),
        (pixels, ("--preset=smnist-gru-cpu", "--update_rate=0.1"), "--update_rate=0.1 has no"),
        (music, ("--cell=gru", "--frozen"), "--frozen=True has no effect: .*add --switch=fourier"),
        (music, ("--switch=none", "--cell=gru"), None),
        (pixels, ("--preset=smnist-cpu", "--update_rate=0.1"), None),  # Some of them have one.
        (pixels, ("--switch=every", "--frozen"), "--frozen=True has no effect: --switch=every"),
        (pixels, ("--switch=zoneout", "--balance=target"), "=target has .*; fourier, event do"),
        (pixels, ("--switch=threshold", "--rate_penalty=1"), "rate_penalty=1.0 has no effect"),
        (pixels, ("--switch=clockwork", "--update_rate=0.1"), "update_rate=0.1 has no effect"),
        (pixels, ("--event_features=trace",), "fourier does not read it"),
        (pixels, ("--frozen", "--balance=target"), "keeps the switch"),
        (pixels, ("--num_heads=2",), "=2 has no effect: only attention"),
        (pixels, ("--positions=rotary", "--layers=gru"), "rotary has no effect: .*learned"),
        (pixels, ("--layers=sugru,attention", "--positions=rotary"), None),
        (pixels, ("--d_state=8",), "only s4d, lru, mamba, mamba2"),
        (lra, ("--layers=s4d,attention", "--hidden=32"), "no recurrent layer"),
        (lra, ("--no_residual", "--mlp_ratio=3"), "=3.0 has no effect"),
        (lra, ("--layers=gru", "--surrogate=soft"), "the model has no switch"),
        (lra, ("--frozen", "--switch_lr_multiplier=0.1"), "keeps the switch"),
        (synthetic, ("--dataset=adding", "--copy_tokens=8"), "adding has no use for it"),
        (wikitext, ("--dataset=wikitext2", "--pooling=last"), "no use"),
        (speech, ("--switch=fourier", "--event_init_std=1"), "fourier does not read it"),
        (music, ("--switch=every", "--balance=floor"), "every does not read it"),
    ],
)
def test_a_flag_that_changes_nothing_is_refused(script, given, words):
    """It trained a dense model, and the record of one said that its switch was frozen."""
    values = absl_flags.FlagValues()
    flags.define(script.Config, script.PRESETS, values)
    values(["x", *given])
    if words is None:
        assert flags.parse_flags(script.Config, script.PRESETS, values)
        return
    with pytest.raises(ValueError, match=words):
        flags.parse_flags(script.Config, script.PRESETS, values)
