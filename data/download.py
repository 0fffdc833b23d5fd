"""Fetches originals from their publishers, when asked to.

A file appears under its name only when it is whole; one that was cut off goes on where it stopped.
"""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from data.source import Download, Source

_CHUNK = 1 << 20


def fetch(source: Source, folder: Path) -> list[Path]:
    """Fetches what is missing of a data set's originals into `folder`.

    Raises:
        ValueError: the publisher offers none, or a file is not what it was.
        OSError: it cannot be had or written.
    """
    if not source.downloads:
        raise ValueError(
            f"{source.name} cannot be fetched: {source.origin}; give your copy by --data_dir=FOLDER"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [_one(source.name, wanted, folder) for wanted in source.downloads]


def _one(name: str, wanted: Download, folder: Path) -> Path:
    target = folder / wanted.file
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    size = "of unknown size" if wanted.size is None else f"{wanted.size / 1e6:,.1f} MB"
    print(f"{name}: fetching {wanted.url} ({size}) to {target}", flush=True)
    try:
        _append(wanted, part)
    except urllib.error.URLError as error:
        raise OSError(
            f"{wanted.url}: {error.reason}; the same command goes on where this one stopped, or "
            f"fetch it by hand and put it into --data_dir=FOLDER as {wanted.file}"
        ) from error
    _check(wanted, part)
    part.rename(target)
    return target


def _append(wanted: Download, part: Path) -> None:
    had = part.stat().st_size if part.exists() else 0
    if wanted.size is not None and had >= wanted.size:
        return
    request = urllib.request.Request(wanted.url, headers={"Range": f"bytes={had}-"} if had else {})
    with urllib.request.urlopen(request) as answer:
        # A server that knows no ranges sends it all again.
        goes_on = answer.status == 206
        length = answer.headers.get("Content-Length")
        total = None if length is None else int(length) + (had if goes_on else 0)
        with (
            part.open("ab" if goes_on else "wb") as stream,
            tqdm(
                desc=wanted.file,
                total=total,
                initial=had if goes_on else 0,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while chunk := answer.read(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))


def _check(wanted: Download, part: Path) -> None:
    size = part.stat().st_size
    if wanted.size is not None and size != wanted.size:
        if size < wanted.size:
            raise OSError(f"{part}: {size} of {wanted.size} bytes; the same command goes on")
        part.unlink()
        raise ValueError(f"{wanted.url}: {size} bytes instead of {wanted.size}; not the file known")
    if wanted.sha256 is not None:
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != wanted.sha256:
            part.unlink()
            raise ValueError(
                f"{wanted.url}: SHA-256 {found} instead of {wanted.sha256}: not the file known, "
                "and thrown away; fetch it again"
            )
