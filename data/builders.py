"""TFDS builders. Array record files, written and read with no TensorFlow in the process.

Importing this module imports TFDS, which takes a quarter of a second; the package does so only when
data are really read or prepared.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from data.locate import CACHE_VARIABLE
from data.music import KEYS
from data.source import SPLITS, Source, Splits


class _LocalInfo(tfds.core.DatasetInfo):
    """A ``DatasetInfo`` that does not look for its figures in a publisher's bucket."""

    def initialize_from_bucket(self) -> None:
        pass


class PianoRolls(tfds.core.GeneratorBasedBuilder):
    """Any data set of rolls: ``id`` a text, ``roll`` uint8 ``[T, 88]``, in the source's order.

    Attributes:
        written: for each split, what tells every example from any other, in order.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, source: Source, splits: Splits, data_dir: Path):
        self._source = source
        self._splits = splits
        self.written: dict[str, list[tuple[str, str]]] = {}
        # The default format, tfrecord, needs TensorFlow.
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self,
            description=f"{self._source.name}: {self._source.title}",
            license=self._source.licence,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    # As bytes: one integer a key takes 15 times as long to write.
                    "roll": tfds.features.Tensor(
                        shape=(None, KEYS), dtype=np.uint8, encoding="bytes"
                    ),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        written = self.written[split] = []
        bar = tqdm(
            self._splits[split],
            desc=f"{self._source.name}: writing {split}",
            unit="sequence",
            disable=None,
            leave=False,
        )
        for number, (name, roll) in enumerate(bar):
            written.append(_identity(name, roll))
            yield number, {"id": name, "roll": roll}


def write(source: Source, splits: Splits, folder: Path) -> None:
    """Writes the examples of every split into ``folder`` and reads them back.

    Raises:
        OSError: they cannot be written, as on a full disk, or do not read back the same.
    """
    with _quiet():
        builder = PianoRolls(source, splits, folder)
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        except RuntimeError as error:  # What array_record makes of a failed write.
            raise OSError(
                f"{source.name}: cannot write prepared data: {error}; make room, or name another "
                f"folder by {CACHE_VARIABLE}=FOLDER"
            ) from error
    for split in SPLITS:
        if list(map(_identity, *read(folder, split))) != builder.written[split]:
            raise OSError(f"{folder}: {source.name} {split} does not read back as it was written")


def read(folder: Path, split: str) -> tuple[list[str], list[np.ndarray]]:
    """The ids and rolls (uint8 ``[T, 88]``) of one split, in order, out of a written folder."""
    with _quiet():
        builder = tfds.builder_from_directory(folder / PianoRolls.name / str(PianoRolls.VERSION))
        records = builder.as_data_source(split)
        examples = records.__getitems__(range(len(records)))
    return [example["id"].decode() for example in examples], [
        example["roll"] for example in examples
    ]


def _identity(name: str, roll: np.ndarray) -> tuple[str, str]:
    return name, hashlib.sha256(f"{roll.dtype} {roll.shape}".encode() + roll.tobytes()).hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from printing, logging and drawing bars of its own."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
