"""Compressed files of every kind, whole and cut short."""

import hashlib
import io

import pytest
import zstandard

from cpsae.corpus.compressed import HashedFile, compression_of, decompressed
from tests.corpus.corpora import COMPRESS, error, read, texts, write_jsonl

TEXT = ("A line of prose, again and again.\n" * 40_000).encode()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_the_bytes_are_the_same(tmp_path, suffix: str) -> None:
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](TEXT))
    with HashedFile(file) as raw:
        assert decompressed(raw).read() == TEXT
        assert raw.reached == file.stat().st_size
        assert raw.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert read(file) == [TEXT.decode()]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.ndjson", "a.txt", "a.py", "notes", "a.csv"]
)
def test_behind_any_name_and_without_a_suffix(tmp_path, suffix: str, name: str) -> None:
    content = b"text\nhello\n" if name == "a.csv" else b'{"text": "hello"}\n{"text": "x"}\n'
    for file in (tmp_path / f"{name}{suffix}", tmp_path / name):
        file.write_bytes(COMPRESS[suffix](content))
        assert read(file)[0] in ("hello", content.decode())
        assert read(file) == read(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("cut", [3, 40])
def test_cut_short_is_an_error(tmp_path, suffix: str, cut: int) -> None:
    file = write_jsonl(tmp_path / f"a.jsonl{suffix}", texts(*map(str, range(5000))))
    file.write_bytes(file.read_bytes()[:-cut])
    assert f"{file}: cannot be read" in error(file)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_wrong_byte_is_an_error(tmp_path, suffix: str) -> None:
    file = tmp_path / f"a.txt{suffix}"
    compress = COMPRESS[suffix]
    if suffix == ".zst":
        compress = zstandard.ZstdCompressor(write_checksum=True).compress
    data = bytearray(compress(bytes(range(1, 128)) * 999))
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert f"{file}: " in error(file)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_members_one_after_another_are_one_file(tmp_path, suffix: str) -> None:
    file = tmp_path / f"a.txt{suffix}"
    compress = COMPRESS[suffix]
    file.write_bytes(compress(b"one ") + compress(b"") + compress(b"two"))
    assert read(file) == ["one two"]


def test_zstd_frames_that_may_be_skipped_and_long_windows(tmp_path) -> None:
    file = tmp_path / "a.txt.zst"
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    sink = io.BytesIO()
    with compressor.stream_writer(sink, closefd=False) as writer:
        writer.write(TEXT)
    skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    file.write_bytes(skipped + sink.getvalue() + skipped)
    assert read(file) == [TEXT.decode()]
    file.write_bytes(sink.getvalue() + b"junk")
    assert "cannot be read" in error(file)


def test_named_as_compressed_and_is_not(tmp_path) -> None:
    file = tmp_path / "a.jsonl.zst"
    file.write_bytes(b'{"text": "x"}\n')
    assert "named as compressed, and it is not" in error(file)


def test_text_that_begins_like_a_magic_number(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("BZh9 is how bzip2 files begin")
    assert read(tmp_path) == ["BZh9 is how bzip2 files begin"]
    assert compression_of(b"BZh9 is how") is None and compression_of(b"") is None
