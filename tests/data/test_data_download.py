"""Downloads from a real server on this machine: whole or not there, going on where they broke."""

import dataclasses
import fcntl
import hashlib
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from data_case import rolls, run, tiny_source, write_mat

from data import download
from data.source import Download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SIZE, SHA256 = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()


class Publisher(ThreadingHTTPServer):
    """Serves `content` at every address.

    Attributes:
        asked: the Range of each request, None where there was none.
        agents: what each request calls its sender.
        ranges: whether it knows ranges.
        stops_after: bytes after which it hangs up, though more was promised.
        shift: how far its parts begin from what was asked for.
        status: an error that it answers with.
        promises: whether it says how long the content is.
    """

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked, self.agents = content, [], []
        self.ranges, self.stops_after, self.shift = True, None, 0
        self.status, self.promises = None, True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/a.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        server.agents.append(self.headers["User-Agent"])
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if server.status:
            self.send_error(server.status)
            return
        if asked and server.ranges and start >= len(server.content):
            self.send_error(416)
            return
        if asked and server.ranges:
            start += server.shift
            self.send_response(206)
            end, size = len(server.content) - 1, len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        else:
            start = 0
            self.send_response(200)
        body = server.content[start:]
        if server.promises:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stops_after])

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def served(content):
    with Publisher(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def publisher():
    with served(CONTENT) as server:
        yield server


def fetch(folder, url, size=SIZE, sha256=SHA256):
    wanted = Download("sub/a.bin", url, size, sha256)
    source = dataclasses.replace(tiny_source(rolls()), downloads=(wanted,))
    return download.fetch(source, folder)


def assert_whole(folder, paths):
    assert paths == [folder / "sub" / "a.bin"]
    assert paths[0].read_bytes() == CONTENT
    assert list(paths[0].parent.iterdir()) == paths


def cut(folder, content=CONTENT[:1_000_001]):
    """What an earlier call left behind."""
    (folder / "sub").mkdir()
    (folder / "sub" / "a.bin.part").write_bytes(content)


def test_fresh(publisher, tmp_path, capsys):
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))
    assert publisher.asked == [None]
    # Not Python's own name, which some publishers turn away.
    assert publisher.agents == ["surnn_jax"]
    says = f"tiny: fetching {publisher.url} (3.0 MB) to {tmp_path / 'sub' / 'a.bin'}\n"
    assert capsys.readouterr().out == says


def test_second_call_asks_nobody(publisher, tmp_path):
    fetch(tmp_path, publisher.url)
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))
    assert len(publisher.asked) == 1


@pytest.mark.parametrize("known", [True, False])
def test_goes_on_where_it_stopped(publisher, tmp_path, known):
    publisher.stops_after = 1_234_567
    facts = {} if known else {"size": None, "sha256": None}
    with pytest.raises(OSError, match=r"broke off after 1234567 of 3000000 bytes.* to resume"):
        fetch(tmp_path, publisher.url, **facts)
    (part,) = (tmp_path / "sub").iterdir()
    assert part.name == "a.bin.part"
    assert part.read_bytes() == CONTENT[:1_234_567]
    publisher.stops_after = None
    assert_whole(tmp_path, fetch(tmp_path, publisher.url, **facts))
    assert publisher.asked == [None, "bytes=1234567-"]


def test_server_without_ranges_sends_it_all_again(publisher, tmp_path):
    cut(tmp_path)
    publisher.ranges = False
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))
    assert publisher.asked == ["bytes=1000001-"]


def test_server_that_promises_no_length(publisher, tmp_path):
    publisher.promises = False
    publisher.stops_after = 2_000_000
    with pytest.raises(OSError, match=r"2000000 of 3000000 bytes; run the same command to resume"):
        fetch(tmp_path, publisher.url)
    publisher.stops_after = None
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))
    assert publisher.asked == [None, "bytes=2000000-"]


def test_all_is_there_but_its_name(publisher, tmp_path):
    """Killed just before the end: with a known size nobody is asked again."""
    cut(tmp_path, CONTENT)
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))
    assert publisher.asked == []


def test_all_is_there_but_its_name_and_size(publisher, tmp_path):
    cut(tmp_path, CONTENT)
    assert_whole(tmp_path, fetch(tmp_path, publisher.url, None, None))
    assert publisher.asked == [f"bytes={len(CONTENT)}-", None]


def test_another_part_than_asked_for_is_not_appended(publisher, tmp_path):
    cut(tmp_path)
    publisher.shift = 5
    with pytest.raises(OSError, match="sends another part than the one asked for"):
        fetch(tmp_path, publisher.url, None, None)
    publisher.shift = 0
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))


def assert_nothing_whole_looking(folder):
    assert all(path.name.endswith(".part") for path in (folder / "sub").iterdir())


def test_longer_than_known(publisher, tmp_path):
    with pytest.raises(ValueError, match=r"3000000 bytes instead of 2999999; not the file known"):
        fetch(tmp_path, publisher.url, len(CONTENT) - 1)
    assert list((tmp_path / "sub").iterdir()) == []


def test_shorter_than_known(publisher, tmp_path):
    with pytest.raises(OSError, match=r"3000000 of 3000001 bytes; run the same command to resume"):
        fetch(tmp_path, publisher.url, len(CONTENT) + 1)
    assert_nothing_whole_looking(tmp_path)


@pytest.mark.parametrize("before", ["nothing", "the start of another file"])
def test_wrong_hash(publisher, tmp_path, before):
    if before != "nothing":
        cut(tmp_path, b"x" * 1000)
    else:
        publisher.content = CONTENT[:-1] + b"\0"
    with pytest.raises(ValueError, match=rf"SHA-256 [0-9a-f]{{64}} instead of {SHA256}: .* again"):
        fetch(tmp_path, publisher.url)
    assert list((tmp_path / "sub").iterdir()) == []
    publisher.content = CONTENT
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))


@pytest.mark.parametrize("status", [404, 403, 500])
def test_refused_by_the_publisher(publisher, tmp_path, status):
    publisher.status = status
    cut(tmp_path)
    with pytest.raises(OSError, match=rf"{publisher.url}: .*{status}.*--data_dir=FOLDER as sub/a"):
        fetch(tmp_path, publisher.url)
    publisher.status = None
    assert_whole(tmp_path, fetch(tmp_path, publisher.url))
    assert publisher.asked[1] == "bytes=1000001-"


def test_nobody_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
        with pytest.raises(OSError, match=r"/a\.bin: .*refused.*run the same command to resume"):
            fetch(tmp_path, url)
    assert_nothing_whole_looking(tmp_path)


def test_silent_publisher_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.bin"
        with pytest.raises(OSError, match=r"/a\.bin: .*; run the same command to resume"):
            fetch(tmp_path, url)
    assert_nothing_whole_looking(tmp_path)


def test_two_at_once_do_not_write_into_one_file(publisher, tmp_path):
    cut(tmp_path)
    with (tmp_path / "sub" / "a.bin.part").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"a\.bin\.part: another process is fetching it"):
            fetch(tmp_path, publisher.url)
    assert publisher.asked == []


def test_nothing_to_fetch(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tiny cannot be fetched: a test; give your copy"):
        download.fetch(tiny_source(rolls()), tmp_path)


# `python -m data.prepare` with one more data set, which its publisher offers at sys.argv[1].
PREPARE = """
import runpy, sys, types
from dataclasses import replace
sys.path[:0] = ["tests/support", "tests/data"]
from data_case import rolls, tiny_source
import data
from data.source import Download
sys.modules["data.sets.tiny"] = module = types.ModuleType("data.sets.tiny")
wanted = Download("poly_music/tiny.mat", sys.argv.pop(1))
module.SOURCES = [replace(tiny_source(rolls()), downloads=(wanted,))]
data._MODULES = {"tiny": ("tiny",)}
runpy.run_module("data.prepare", run_name="__main__")
"""


@pytest.fixture
def prepare(tmp_path):
    content = write_mat(tmp_path / "tiny.mat", rolls()).read_bytes()
    places = {"SURNN_CACHE": tmp_path / "cache", "no_proxy": "*"}
    with served(content) as server:
        yield server, lambda *flags: run("-c", PREPARE, server.url, "tiny", *flags, **places)


def test_prepare_asks_nobody_unless_told(prepare, tmp_path):
    publisher, prepare = prepare
    done = prepare()
    assert done.returncode == 2
    assert "tiny needs tiny.mat or poly_music/tiny.mat or " in done.stderr
    assert publisher.asked == []
    done = prepare("--download")
    assert (done.returncode, done.stderr) == (0, "")
    target = tmp_path / "cache" / "downloads" / "poly_music" / "tiny.mat"
    fetching, prepared = done.stdout.splitlines()
    assert fetching == f"tiny: fetching {publisher.url} (of unknown size) to {target}"
    assert prepared.startswith("tiny: prepared: ")
    done = prepare("--download")
    assert done.stdout.startswith("tiny: already prepared and whole: ")
    assert len(publisher.asked) == 1


def test_prepare_fetches_into_the_folder_that_was_named(prepare, tmp_path):
    publisher, prepare = prepare
    done = prepare("--download", f"--data_dir={tmp_path / 'mistyped'}")
    assert done.returncode == 2
    assert "mistyped: no such folder" in done.stderr
    assert not (tmp_path / "mistyped").exists()
    assert publisher.asked == []
    (tmp_path / "named").mkdir()
    done = prepare("--download", f"--data_dir={tmp_path / 'named'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "named" / "poly_music" / "tiny.mat").exists()
