"""Where the published figures come from, and how far each can be trusted.

A figure is *verified* if the table of the paper that measured it was found, with the same number,
in at least two independent public places; *second-hand* if one place relays it. What is only
remembered is left out.
"""

from typing import NamedTuple

VERIFIED, SECOND_HAND = "verified", "second-hand"


class Source(NamedTuple):
    """A place in the literature.

    Attributes:
        short: a few words that can stand beside a number.
        url: of the paper, or of the page that relays it.
        checked: how its figures were checked.
    """

    short: str
    url: str
    checked: str


SOURCES = {
    "chung": Source(
        "Chung et al. 2014, table 2",
        "https://arxiv.org/abs/1412.3555",
        "the figure of the GRU on JSB Chorales: Papers with Code, and github.com/2j2h5/lstm-gru",
    ),
    "lstm-gru": Source(
        "Chung et al. 2014, table 2, in 2j2h5/lstm-gru",
        "https://github.com/2j2h5/lstm-gru",
        "its README quotes the JSB row of the paper: 8.54 of the GRU and 8.67 of the LSTM",
    ),
    "lra": Source(
        "Tay et al. 2020, table 1",
        "https://arxiv.org/abs/2011.04006",
        "the leaderboard in github.com/google-research/long-range-arena, and many later papers",
    ),
    "s4": Source(
        "Gu et al. 2022, tables 4 and 6",
        "https://arxiv.org/abs/2111.00396",
        "transcriptions of both tables in public notes on the paper, and in later papers",
    ),
    "mamba": Source(
        "Gu & Dao 2023, table 1",
        "https://arxiv.org/abs/2312.00752",
        "transcriptions of the table in several public notes on the paper",
    ),
    "surnn": Source(
        "Yin et al. 2026, by a digest",
        "https://arxiv.org/abs/2603.02226",
        "the text of tables 2 to 5 could not be had; a machine-written digest relays these figures",
    ),
    "wizwand": Source(
        "Orvieto et al. 2023, by wizwand.com",
        "https://www.wizwand.com",
        "a leaderboard relays the perplexity",
    ),
}
"""Key -> source."""


class Published(NamedTuple):
    """A published test figure.

    Attributes:
        value: in the unit of the table.
        tag: :data:`VERIFIED` or :data:`SECOND_HAND`.
        source: key of :data:`SOURCES`.
    """

    value: float
    tag: str
    source: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.tag}: {SOURCES[self.source].short})"


def verified(source: str, **values: float) -> dict[str, Published]:
    """Data set -> figure, each verified."""
    return {dataset: Published(value, VERIFIED, source) for dataset, value in values.items()}


def second_hand(source: str, **values: float) -> dict[str, Published]:
    """Data set -> figure, each second-hand."""
    return {dataset: Published(value, SECOND_HAND, source) for dataset, value in values.items()}


DOUBTS = (
    (
        "Averages over Long Range Arena are not of the same tasks",
        "The suGRU's 70.43 is a mean over five tasks. The figures beside it are means over six, "
        "Path-X among them: 86.09 of S4 (84.03 over the five), and 53.66 of the Transformer, for "
        "which a failure at Path-X counts as 50 (54.39 over the five).",
    ),
    (
        "Better on the test than on the validation text",
        "On WikiText-103 the suGRU has a perplexity of 19.28 on the validation text and 19.20 on "
        "the test text. Every other model of that table is worse on the test text (the "
        "Transformer 24.40 and 24.78, Mamba 22.58 and 23.19). A state carried over or a longer "
        "context might explain it; which one is not known. The gain over the Transformer, 5.6, is "
        "large for models of 45 million parameters.",
    ),
    (
        "Some rows named suGRU are hybrids",
        "The rows on Selective Copy, 97.2 with two layers and 99.5 with three, mix suGRU and S4, "
        "and so does the best row on WikiText-103 (18.03). A suGRU alone has no published figure "
        "on Selective Copy.",
    ),
    (
        "A range quoted by its best",
        "The selective state space reaches 97.0 to 99.8 % on Selective Copy, depending on the "
        "block around it. Mamba, the block that was proposed, has 99.8.",
    ),
    (
        "Text is level",
        "The suGRU's 64.42 on Text is 0.15 points above the Transformer's 64.27; the gain is in "
        "Retrieval, Image and Pathfinder. S4 reads from both ends, the suGRU from one.",
    ),
    (
        "Best on sCIFAR of those shown",
        "The suGRU's 87.26 on sCIFAR is called the best, but the table of the S4 paper has 91.13 "
        "for S4.",
    ),
    (
        "Widths, depths and training of the suRNN paper are not known",
        "Nor are the number of harmonics, the initial gates and the form of the surrogate. All "
        "settings here are ours. The ablation (binary gate 70.43, soft gate 59.44, means over five "
        "tasks) is known by its averages alone.",
    ),
    (
        "Most of table 2 of Chung et al. could not be verified",
        "Only the figures of the GRU and the LSTM on JSB Chorales were found in public places. A "
        "public README quotes 9.19 for tanh there, where 9.10 is remembered, so neither is shown. "
        "The rest of the table, the other music and the speech of Ubisoft, is left out. The "
        "authors' code reads 93 to 108 keys a frame, ours 88.",
    ),
)
"""(title, what is doubtful) of the published figures."""
