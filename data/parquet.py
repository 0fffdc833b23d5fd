"""Texts out of parquet files, as Hugging Face keeps them: a line a row, in the column ``text``.

They are read by pyarrow, which is native code: in a child, see :mod:`data.guarded`.
"""

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data import guarded


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a text, each with its line feed.

    Raises:
        ValueError: the file is damaged, or has no such column.
        FileNotFoundError: the package pyarrow is missing.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise FileNotFoundError(
            f"{path}: reading parquet needs the package pyarrow; pip install pyarrow"
        )
    with guarded.Reader(f"{__name__}:group") as reader:
        number, groups = 0, 1
        while number < groups:
            groups, (record,) = reader(str(path), str(path), number)
            yield from io.BytesIO(record["x"].tobytes())
            number += 1


def group(file: str, number: int) -> guarded.Answer:
    """Reads one group of rows; runs in a child.

    Returns:
        How many groups there are; ``x`` uint8, their lines.

    Raises:
        ValueError: see `lines`.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if "text" not in names:
                raise ValueError(f"no column 'text' in it, but {', '.join(names)}")
            count, table = opened.num_row_groups, []
            if count:
                table = opened.read_row_group(number, ["text"])["text"].to_pylist()
        if not all(isinstance(row, str) for row in table):
            raise ValueError("a row of its column 'text' is no text")
    except (ValueError, pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: no whole parquet file of a text ({reason})") from error
    # A row that is empty was a line of one blank.
    text = "".join((row.rstrip("\n").replace("\n", " ") or " ") + "\n" for row in table)
    return count, [{"x": np.frombuffer(text.encode(), np.uint8)}]
