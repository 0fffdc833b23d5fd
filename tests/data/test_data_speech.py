"""The four corpora of speech: tiny ones in their forms, bad ones, the real ones."""

import functools
import io
import re
import tarfile
import wave

import numpy as np
import pytest
from original_case import SOUND, load_real, riff, sphere, tone, write

import data
from data import paths
from data.sets import speech

# As the corpus' own documentation lists them, by dialect region.
CORE_TEST = {
    1: "MDAB0 MWBT0 FELC0",
    2: "MTAS1 MWEW0 FPAS0",
    3: "MJMP0 MLNT0 FPKT0",
    4: "MLLL0 MTLS0 FJLM0",
    5: "MBPM0 MKLT0 FNLP0",
    6: "MCMJ0 MJDH0 FMGD0",
    7: "MGRT0 MNJM0 FDHC0",
    8: "MJLN0 MPAM0 FMLD0",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def ldc():
    """As many files as the whole of TIMIT has, by their names in the corpus."""
    test = {name for names in CORE_TEST.values() for name in names.split()} | speech.DEVELOPMENT
    test |= {f"MT{n // 26 % 26 + 65:c}{n % 26 + 65:c}7" for n in range(94)}
    train = {f"FR{n // 26 % 26 + 65:c}{n % 26 + 65:c}0" for n in range(462)}
    assert (len(train), len(test)) == (462, 168)
    region = {name: number for number, names in CORE_TEST.items() for name in names.split()}
    folders = [f"TRAIN/DR{n % 8 + 1}/{name}" for n, name in enumerate(sorted(train))]
    folders += [
        f"TEST/DR{region.get(name, n % 8 + 1)}/{name}" for n, name in enumerate(sorted(test))
    ]
    sentences = [
        "SA1",
        "SA2",
        "SI510",
        "SI1140",
        "SI1770",
        *(f"SX{n}" for n in (7, 97, 187, 277, 367)),
    ]
    names = [f"TIMIT/{folder}/{sentence}.WAV" for folder in folders for sentence in sentences]
    assert len(names) == 6300
    return {name: sphere(tone(number)) for number, name in enumerate(names)}


def test_the_whole_of_timit(tmp_path, ldc):
    extra = {"TIMIT/TRAIN/DR1/FRAA0/SX7.TXT": b"0 4 Hello", "TIMIT/README.DOC": b"TIMIT"}
    # The archive begins with the test part, and one file of it is RIFF.
    names = sorted(ldc)
    odd = next(name for name in names if "/MDAB0/SX" in name)
    contents = {**{name: ldc[name] for name in names}, odd: riff([1, 2, 3], 16000), **extra}
    write(tmp_path / "timit_LDC93S1.tar", contents)
    splits = {split: data.load("timit", split, tmp_path) for split in data.SPLITS}
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 3696,
        "valid": 400,
        "test": 192,
    }
    core = {name for group in CORE_TEST.values() for name in group.split()}
    speakers = {s: {label.split("/")[2] for label in found.ids} for s, found in splits.items()}
    assert speakers["test"] == core
    assert len(speakers["valid"] - core) == 50
    numbers = {name: number for number, name in enumerate(ldc)}
    for found in splits.values():
        assert found.facts == {"sample_rate": 16000, "version": "LDC93S1"}
        for label, samples in zip(found.ids, found["x"], strict=True):
            name = f"TIMIT/{label}.WAV"
            expected = [1, 2, 3] if name == odd else tone(numbers[name])
            assert samples.tolist() == list(expected)
    assert not any("/SA" in label for found in splits.values() for label in found.ids)


def test_missing_file_of_timit_names_the_speaker(tmp_path, ldc):
    contents = dict(ldc)
    del contents["TIMIT/TEST/DR4/FJLM0/SX97.WAV"]
    write(tmp_path / "TIMIT.tar", contents)
    with pytest.raises(ValueError, match=r"TIMIT\.tar: TEST/DR4/FJLM0 has 7 recordings .* have 8"):
        data.load("timit", "train", tmp_path)


@pytest.mark.parametrize("inner", ["", "TIMIT/", "timit/timit/"])
def test_timit_in_lower_case_and_incomplete(tmp_path, ldc, inner):
    for name, content in ldc.items():
        if "/DR1/" in name and "/MDAB0/" in name:
            path = tmp_path / (inner + name.removeprefix("TIMIT/").lower())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    train = tmp_path / inner / "train" / "dr1" / "mrab0"
    train.mkdir(parents=True)
    for number in range(8):
        (train / f"sx{number}.wav").write_bytes(sphere(tone(number)))
    with pytest.raises(ValueError, match="train should have 3696 examples, but has 8 examples"):
        data.load("timit", "test", tmp_path)
    reading = data.source_of("timit").read(tmp_path, tmp_path)
    assert [label for label, _ in reading.splits["train"]][3] == "TRAIN/DR1/MRAB0/SX3"
    assert len(reading.splits["test"]) == 8


def test_folder_without_timit(tmp_path):
    (tmp_path / "TIMIT").mkdir()
    (tmp_path / "TIMIT" / "a.wav").write_bytes(sphere())
    with pytest.raises(ValueError, match=r"TIMIT: no TIMIT in it; .*TRAIN/DR1/FCJF0/SI1027\.WAV"):
        data.load("timit", "train", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (riff(SOUND, 8000), "8000 samples a second; there should be 16000"),
        (sphere()[:-1], "13 bytes of samples instead of 14"),
    ],
)
def test_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "timit" / "dr3-fabc0"
    path.mkdir(parents=True)
    (path / "sx1.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"timit: dr3-fabc0/sx1\.wav: .*{message}"):
        data.load("timit", "train", tmp_path)


def _read(name: str, folder) -> dict[str, dict]:
    reading = data.source_of(name).read(folder, folder)
    return {split: dict(reading.splits[split]) for split in data.SPLITS}


def test_fsdd_splits_by_take(tmp_path):
    names = [f"{digit}_theo_{take}" for digit in (0, 9) for take in (0, 4, 5, 9, 10, 49)]
    contents = {f"set/recordings/{n}.wav": riff(tone(i)) for i, n in enumerate(names)}
    write(tmp_path / "free-spoken-digit-dataset.tar.gz", contents | {"set/README.md": b"hello"})
    found = _read("fsdd", tmp_path)
    takes = {split: sorted({int(n.split("_")[2]) for n in found[split]}) for split in found}
    assert takes == {"train": [10, 49], "valid": [5, 9], "test": [0, 4]}
    for examples in found.values():
        for name, example in examples.items():
            assert example["y"] == int(name[0])
            np.testing.assert_array_equal(example["x"], tone(names.index(name)))
    with pytest.raises(ValueError, match="not the published data: train should have 2400 examples"):
        data.load("fsdd", "train", tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-30], lambda raw: raw[:90] + b"?" + raw[91:]])
def test_damaged_archive(tmp_path, damage):
    path = tmp_path / "fsdd_recordings.tar.gz"
    random = np.random.default_rng(0)
    write(path, {f"1_theo_{n}.wav": riff(random.integers(-99, 99, 50)) for n in range(20)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"fsdd_recordings\.tar\.gz: cut short or damaged"):
        data.load("fsdd", "train", tmp_path)
    assert not list((tmp_path / "cache" / "fsdd").glob("[0-9a-f]*"))


@pytest.mark.parametrize(
    ("place", "inner"),
    [
        (".", "en_US_f_Allison/"),
        ("asterisk_core_sounds_en_wav.tar.gz", "en_US_f_Allison/"),
        ("asterisk-core-sounds-en-wav-1.6.1.tar.gz", "./"),
    ],
)
def test_asterisk_takes_speech_only(tmp_path, place, inner):
    names = [f"w{n:02}" for n in range(18)] + ["digits/1", "digits/2"]
    others = ["silence/1", "beep", "beeperr", "ascending-2tone", "descending-2tone", "tt-monkeys"]
    contents = {f"{inner}{n}.wav": riff(tone(number)) for number, n in enumerate(names + others)}
    # The order in an archive does not matter.
    write(tmp_path / place, dict(reversed(contents.items())))
    found = _read("asterisk_speech", tmp_path)
    assert list(found["valid"]) == ["w06", "w16"]
    assert list(found["test"]) == ["w07", "w17"]
    assert sorted(name for split in found.values() for name in split) == sorted(names)
    np.testing.assert_array_equal(found["train"]["digits/2"]["x"], tone(19))


@pytest.mark.parametrize(
    ("folder", "splits", "version"),
    [
        ("LJSpeech-sample", ["train", "train", "valid", "test"], "a sample of 1.1"),
        ("LJSpeech-1.1", ["test", "test", "test", "test"], "1.1"),
    ],
)
def test_ljspeech(tmp_path, folder, splits, version):
    names = ["LJ001-0001", "LJ001-0024", "LJ001-0028", "LJ001-0029"]
    more = {
        "LJ002-0337": "test",
        "LJ003-0001": "valid",
        "LJ004-0001": "train",
        "LJ050-0278": "train",
    }
    expected = dict(zip(names, splits, strict=True)) | (more if version == "1.1" else {})
    contents = {f"{folder}/wavs/{n}.wav": riff(tone(i), 22050) for i, n in enumerate(expected)}
    write(tmp_path / f"{folder}.tar", contents | {f"{folder}/metadata.csv": b"LJ001-0001|a|a"})
    reading = data.source_of("ljspeech").read(tmp_path, tmp_path)
    found = {n: s for s in data.SPLITS for n, _ in reading.splits[s]}
    assert found == expected
    assert reading.facts["version"] == version
    with pytest.raises(ValueError, match="not the published data: train should have"):
        data.load("ljspeech", "train", tmp_path)


@pytest.mark.parametrize("name", ["timit", "fsdd", "asterisk_speech", "ljspeech"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"^{name} needs .*--data_dir=FOLDER") as caught:
        data.load(name, "train", tmp_path)
    assert len(str(caught.value)) < 400


# The real ones


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Loads real sets, each of them prepared once for this module."""
    return functools.partial(load_real, folder=tmp_path_factory.mktemp("real"))


def _first_files(archive: str, count: int) -> dict[str, bytes]:
    """Some sound files of an archive, by their paths."""
    try:
        path = paths.original("this test", [archive])
    except FileNotFoundError as error:
        pytest.skip(f"needs the archive: {error}")
    found = {}
    with tarfile.open(path, "r|*") as opened:
        for member in opened:
            if member.name.endswith(".wav"):
                found[member.name] = opened.extractfile(member).read()
            if len(found) == count:
                break
    return found


@pytest.mark.full
def test_real_timit_sample(prepared):
    splits = prepared("timit")
    if splits["train"].facts["version"] == "LDC93S1":
        pytest.skip("the whole of TIMIT lies here, not the sample")
    assert [len(splits[split]) for split in data.SPLITS] == [96, 16, 16]
    regions = {split: sorted({label[:3] for label in splits[split].ids}) for split in data.SPLITS}
    assert regions == {"train": [f"DR{n}" for n in range(1, 7)], "valid": ["DR7"], "test": ["DR8"]}
    lengths = np.concatenate([splits[split]["x"].lengths for split in data.SPLITS])
    assert (lengths.min(), lengths.max()) == (22_938, 88_372)
    # The headers, read in another way.
    found = _by_id(splits)
    seen = 0
    for name, content in _first_files("timit_sample/timit_sample.tar.xz", 160).items():
        label = re.sub(r"^timit/(dr\d)-(\w+)/(\w+)\.wav$", r"\1/\2/\3", name).upper()
        if not label.split("/")[2].startswith("SA"):
            head = content[:1024].decode()
            count, low, high = (
                int(re.search(rf"^sample_{field} -i (-?\d+)$", head, re.M)[1])
                for field in ("count", "min", "max")
            )
            samples = found[label]
            assert (len(samples), samples.min(), samples.max()) == (count, low, high)
            seen += 1
    assert seen == len(found) == 128


def _same(found: dict[str, np.ndarray], files: dict[str, bytes], label) -> int:
    """How many of the files are among the recordings, with the samples that `wave` reads."""
    compared = 0
    for name, content in files.items():
        if label(name) in found:
            with wave.open(io.BytesIO(content)) as sound:
                frames = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
            np.testing.assert_array_equal(found[label(name)], frames)
            compared += 1
    return compared


def _by_id(splits: dict[str, data.Split]) -> dict[str, np.ndarray]:
    return {
        label: samples
        for split in splits.values()
        for label, samples in zip(split.ids, split["x"], strict=True)
    }


@pytest.mark.full
def test_real_fsdd(prepared):
    splits = prepared("fsdd")
    assert [len(splits[split]) for split in data.SPLITS] == [2400, 300, 300]
    found = _by_id(splits)
    assert len(found) == 3000
    # The figures that the data set's description gives for its own two splits.
    kept = np.concatenate([splits[split]["x"].lengths for split in ("train", "valid")])
    assert (kept.min(), kept.max(), round(kept.mean())) == (1149, 18262, 3505)
    test = splits["test"]["x"].lengths
    assert (test.min(), test.max(), round(test.mean())) == (1148, 9178, 3447)
    for split in splits.values():
        np.testing.assert_array_equal(np.bincount(split["y"]), len(split) // 10)
    files = _first_files("fsdd/fsdd_recordings.tar.xz", 60)
    assert _same(found, files, lambda name: name.rpartition("/")[2].removesuffix(".wav")) == 60


@pytest.mark.full
def test_real_asterisk(prepared):
    splits = prepared("asterisk_speech")
    found = _by_id(splits)
    assert len(found) == 553
    seconds = sum(map(len, found.values())) / 8000
    assert round(seconds / 60, 1) == 24.3
    assert round(max(map(len, found.values())) / 8000, 1) == 73.3
    assert [len(splits[split]) for split in data.SPLITS] == [443, 55, 55]
    files = _first_files("asterisk_speech/asterisk_core_sounds_en_wav.tar.xz", 40)
    assert _same(found, files, lambda name: name.partition("/")[2].removesuffix(".wav")) > 30


@pytest.mark.full
def test_real_ljspeech_sample(prepared):
    splits = prepared("ljspeech")
    if splits["train"].facts["version"] == "1.1":
        pytest.skip("the whole of LJ Speech lies here, not the sample")
    assert splits["train"].ids == [f"LJ001-{n:04}" for n in range(1, 25)]
    assert splits["valid"].ids == [f"LJ001-{n:04}" for n in range(25, 29)]
    assert splits["test"].ids == [f"LJ001-{n:04}" for n in range(29, 33)]
    found = _by_id(splits)
    lengths = np.array([len(samples) for samples in found.values()])
    assert (lengths.min(), round(lengths.mean()), lengths.max()) == (39_325, 152_797, 219_293)
    files = _first_files("ljspeech_sample/ljspeech_sample.tar.xz", 32)
    assert _same(found, files, lambda name: name.rpartition("/")[2].removesuffix(".wav")) == 32


@pytest.mark.parametrize("name", ["timit", "fsdd", "asterisk_speech", "ljspeech"])
def test_show(prepared, name):
    split = prepared(name)["valid"]
    bars, words = data.source_of(name).show(split.example(0), split.facts)
    assert len(bars) == 72
    assert set(bars) <= set("▁▂▃▄▅▆▇█")
    assert f"{len(split['x'][0]) / split.facts['sample_rate']:.2f} s at" in words
    assert ("label" in words) == (name == "fsdd")
