"""Next-frame prediction on polyphonic music, after Chung et al. 2014, section 4.

    python -m experiments.music --preset=chorales
    python -m experiments.music --dataset=jsb --cell=gru --data_dir=FOLDER --workdir=runs/jsb-gru

One frame is the set of keys that sound, as 88 zeros and ones; the model sees frames up to t and
gives 88 independent probabilities for t + 1. The figure reported is the negative log-likelihood in
nats, summed over the keys and averaged over all predicted frames of a split; the first frame of a
piece is not predicted. The epoch with the lowest figure on the validation split counts.
"""

import dataclasses

from experiments.report import listing
from experiments.runner import main
from experiments.tasks import registry
from experiments.tasks.music.config import Config


def _units(base: Config) -> dict[str, Config]:
    """The paper's three units and our selective ones on one data set."""
    change = dataclasses.replace
    selective = change(base, switch="fourier", learning_rate=0.01)
    held = {"rate": 0.48, "hold": 50.0, "switch_scale": 3.0}
    return {
        "tanh": change(base, cell="tanh", learning_rate=0.001),
        "lstm": change(base, cell="lstm_peephole"),
        "gru": base,
        "gru-before": change(base, cell="gru_before"),
        "sugru": selective,
        "sugru-open": change(selective, rate=0.8, learning_rate=0.003),
        "sugru-frozen": change(selective, rate=0.7, frozen=True),
        "sugru-held": change(selective, **held),
        "sugru-event": change(selective, **held, switch="event", spread=0.2),
    }


_CHORALES = Config(max_epochs=60, patience=8)

# Name -> runs. Expected figures and times are those of the records in experiments/results/music,
# which `python -m experiments.tables --suite=music` prints; hardware: two CPU cores.
PRESETS: dict[str, dict[str, Config]] = {
    # python -m experiments.music --preset=smoke
    # The whole path once, to see that it works; says nothing about any unit.
    "smoke": {"": Config(switch="fourier", features=16, max_epochs=2, patience=2)},
    # python -m experiments.music --preset=chorales
    # Four units side by side on the data that ships with music21.
    "chorales": {
        "sugru": dataclasses.replace(_CHORALES, switch="fourier", rate=0.8),
        "gru": _CHORALES,
        "lstm": dataclasses.replace(_CHORALES, cell="lstm_peephole"),
        "tanh": dataclasses.replace(_CHORALES, cell="tanh", learning_rate=0.002),
    },
    # python -m experiments.music --preset=jsb --data_dir=FOLDER
    # Table 2 of Chung et al. 2014, row JSB Chorales, with the selective units beside it.
    "jsb": _units(Config("jsb")),
    # python -m experiments.music --preset=nottingham --data_dir=FOLDER
    "nottingham": _units(
        Config(
            "nottingham",
            horizon=512,
            learning_rate=0.01,
            schedule="cosine",
            weight_decay=0.1,
            batch_size=4,
            max_epochs=80,
            patience=80,
        )
    ),
}


if __name__ == "__main__":
    main.run("music", Config, PRESETS, registry.load, listing.show)
