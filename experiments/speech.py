"""Speech as a raw waveform, after Chung et al. 2014, section 4.

    python -m experiments.speech --preset=fsdd-gru --data_dir=FOLDER
    python -m experiments.speech --dataset=asterisk_speech --cell=tanh --window=8000

The model sees 20 samples and gives a density for the next 10, a mixture of 20 Gaussians; then it
moves on by 10. The figure reported is the negative log-density in nats a step, that is of 10
samples in units of the training samples' standard deviation. It is below 0 if the density is above
1, and at least -36.9 with the default ``--min_std``, the least deviation of a Gaussian. The epoch
with the lowest figure on the validation split counts.

The paper's recordings are not public; these sets stand in for them, so its figures and ours can be
compared in their order alone.
"""

import dataclasses

from experiments.report import listing
from experiments.runner import main
from experiments.tasks import registry
from experiments.tasks.speech.config import Config


def _units(base: Config) -> dict[str, Config]:
    """The paper's three units and our selective ones on one data set."""
    change = dataclasses.replace
    selective = change(base, rate=0.8)
    return {
        "tanh": change(base, cell="tanh"),
        "lstm": change(base, cell="lstm_peephole"),
        "gru": base,
        "gru-before": change(base, cell="gru_before"),
        "sugru": change(selective, switch="fourier"),
        "sugru-event": change(selective, switch="event", spread=0.2),
    }


_SETS = {
    # As Ubisoft A: 7,230 sequences of 500 samples.
    "fsdd": Config("fsdd"),
    "asterisk_speech": Config("asterisk_speech"),
    "ljspeech": Config("ljspeech"),
    "timit": Config("timit"),
    # As Ubisoft B: 800 of 8,000, a second; few recordings of fsdd are as long.
    "asterisk_speech-8000": Config(
        "asterisk_speech", window=8000, windows=800, evaluated=0, horizon=798
    ),
}

# Name -> runs: `SET` runs every unit, `SET-UNIT` one.
PRESETS: dict[str, dict[str, Config]] = {
    # python -m experiments.speech --preset=smoke --data_dir=FOLDER
    # The whole path once, to see that it works; says nothing about any unit.
    "smoke": {"": Config(features=16, switch="fourier", windows=256, evaluated=64, max_epochs=2)},
}
for _name, _base in _SETS.items():
    PRESETS[_name] = _units(_base)
    PRESETS |= {f"{_name}-{unit}": {"": config} for unit, config in PRESETS[_name].items()}


if __name__ == "__main__":
    main.run("speech", Config, PRESETS, registry.load, listing.show)
