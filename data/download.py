"""Downloads originals from their publishers.

A file appears under its name only when it is complete; an interrupted download resumes.
"""

import fcntl
import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from data.source import Download, Source

_CHUNK = 1 << 20
_AGENT = "surnn_jax"
"""Some publishers turn away Python's own name for itself."""
_PATIENCE = 60
"""Seconds without a byte before a download fails."""


def fetch(source: Source, folder: Path) -> list[Path]:
    """Downloads the missing originals of a data set into `folder`.

    Raises:
        ValueError: a file is not the published one.
        FileNotFoundError: the data set has no downloads.
        OSError: a file cannot be downloaded or written.
    """
    if not source.downloads:
        raise FileNotFoundError(
            f"{source.name} cannot be fetched: {source.origin}; give your copy by --data_dir=FOLDER"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch(source.name, wanted, folder) for wanted in source.downloads]


def _fetch(name: str, wanted: Download, folder: Path) -> Path:
    target = folder / wanted.file
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    size = "of unknown size" if wanted.size is None else f"{wanted.size / 1e6:,.1f} MB"
    print(f"{name}: fetching {wanted.url} ({size}) to {target}", flush=True)
    with part.open("ab") as stream:
        _lock(stream, part)
        try:
            _append(wanted, stream)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            raise OSError(
                f"{wanted.url}: {error}; run the same command to resume, or "
                f"fetch it by hand and put it into --data_dir=FOLDER as {wanted.file}"
            ) from error
        except TimeoutError as error:
            raise OSError(
                f"{wanted.url}: no answer for {_PATIENCE} s; run the same command to resume"
            ) from error
        stream.flush()
        _check(wanted, part)
        part.rename(target)
    return target


def _lock(stream: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"{part}: another process is fetching it; wait for its end") from error


def _append(wanted: Download, stream: BinaryIO) -> None:
    """Downloads the rest of a file that the stream holds in part."""
    if wanted.size is not None and stream.tell() >= wanted.size:
        return
    with _open(wanted.url, stream) as answer:
        had = stream.tell()
        length = answer.headers.get("Content-Length")
        total = None if length is None else had + int(length)
        with tqdm(
            desc=wanted.file, total=total, initial=had, unit="B", unit_scale=True, disable=None
        ) as bar:
            while chunk := answer.read(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
    if total is not None and stream.tell() < total:
        raise http.client.HTTPException(f"it broke off after {stream.tell()} of {total} bytes")


def _open(url: str, stream: BinaryIO) -> http.client.HTTPResponse:
    """The rest of a file, from the stream's end on; empties the stream if it must start over."""
    had = stream.tell()
    headers = {"User-Agent": _AGENT} | ({"Range": f"bytes={had}-"} if had else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if not had or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # The stream holds another file, or all of one of unknown size.
        stream.truncate(0)
        stream.seek(0)
        return _open(url, stream)
    if answer.status != http.client.PARTIAL_CONTENT:  # A server that knows no ranges.
        stream.truncate(0)
        stream.seek(0)
    elif not answer.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
        answer.close()
        raise http.client.HTTPException("it sends another part than the one asked for")
    return answer


def _check(wanted: Download, part: Path) -> None:
    size = part.stat().st_size
    if wanted.size is not None and size != wanted.size:
        if size < wanted.size:
            raise OSError(f"{part}: {size} of {wanted.size} bytes; run the same command to resume")
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
