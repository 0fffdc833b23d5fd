"""TFDS: our data sets as array record files, written and read with no TensorFlow in the process.

For pipelines that use TFDS, and for prepared data that are in a TFDS folder already. The data set
is called ``surnn_<name>``; the features are ``id`` and the columns, in the prepared order.
Importing this module imports TFDS, which takes a quarter of a second; the package does so only when
such a folder is really read or written.
"""

import contextlib
import io
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from data.source import SPLITS, Column, Example, Reading, Source
from data.storage import Split

_VERSION = "1.0.0"


class _LocalInfo(tfds.core.DatasetInfo):
    """A ``DatasetInfo`` that does not ask a publisher's bucket for its figures."""

    def initialize_from_bucket(self) -> None:
        pass


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds any of our data sets from its prepared columns."""

    VERSION = tfds.core.Version(_VERSION)

    def __init__(self, source: Source, splits: dict[str, Split], data_dir: Path):
        self._source = source
        self._splits = splits
        self.name = f"surnn_{source.name}"
        # The default format, tfrecord, needs TensorFlow.
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: _feature(column) for name, column in self._source.columns.items()}
        return _LocalInfo(
            builder=self,
            description=f"{self._source.name}: {self._source.title}",
            license=self._source.licence,
            features=tfds.features.FeaturesDict({"id": tfds.features.Text(), **features}),
            metadata=tfds.core.MetadataDict(self._splits["train"].facts),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        data = self._splits[split]
        bar = tqdm(
            range(len(data)),
            desc=f"{data.name}: TFDS {split}",
            unit="example",
            disable=None,
            leave=False,
        )
        for number in bar:
            yield number, {"id": data.ids[number], **data.example(number)}


def write(source: Source, splits: dict[str, Split], folder: Path) -> Path:
    """Writes all splits into ``<folder>/surnn_<name>``, which must not be there, and reads it back.

    Raises:
        OSError: it cannot be written, as on a full disk, or does not read back the same.
    """
    with _quiet():
        builder = Builder(source, splits, folder)
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        except RuntimeError as error:  # What array_record makes of a failed write.
            raise OSError(f"{folder}: cannot write {source.name}: {error}; make room") from error
    written = folder / f"surnn_{source.name}"
    again = read(written).splits
    for split, data in splits.items():
        if not _same(again[split], data):
            shutil.rmtree(written)
            raise OSError(f"{written}: {split} does not read back as it was written; try again")
    return written


def read(folder: Path) -> Reading:
    """The examples of all splits out of a folder that ``write`` has made.

    Raises:
        ValueError: it is no such folder, or damaged.
    """
    try:
        with _quiet():
            builder = tfds.builder_from_directory(folder / _VERSION)
            sources = {split: builder.as_data_source(split) for split in SPLITS}
            facts = dict(builder.info.metadata or {})
    except Exception as error:  # TFDS raises almost anything on foreign folders.
        raise ValueError(f"{folder}: no whole TFDS data set of ours ({error})") from error
    splits = {split: _examples(source, f"{folder}: {split}") for split, source in sources.items()}
    return Reading(str(folder), splits, facts, None)


def _same(examples: Iterable[Example], data: Split) -> bool:
    number = 0
    for number, (label, example) in enumerate(examples, 1):
        if number > len(data) or label != data.ids[number - 1]:
            return False
        wanted = data.example(number - 1)
        if not all(
            np.array_equal(example[name], value, equal_nan=True) for name, value in wanted.items()
        ):
            return False
    return number == len(data)


def _examples(source, where: str) -> Iterator[Example]:
    for start in range(0, len(source), 1000):
        try:
            records = source.__getitems__(range(start, min(start + 1000, len(source))))
        except Exception as error:
            raise ValueError(f"{where}: damaged from example {start} on ({error})") from error
        for record in records:
            yield record.pop("id").decode(), record


def _feature(column: Column):
    dtype = np.dtype(column.dtype)
    if not column.shape:
        return tfds.features.Scalar(dtype=dtype)
    # As bytes: one integer a value takes 15 times as long to write.
    return tfds.features.Tensor(shape=column.shape, dtype=dtype, encoding="bytes")


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
