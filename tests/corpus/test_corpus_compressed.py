"""Compressed files of every kind, whole and cut short."""

import bz2
import gzip
import hashlib
import io
import lzma
from collections.abc import Callable

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


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", STREAMS)
def test_a_second_stream_is_read_and_its_damage_is_seen(tmp_path, suffix: str) -> None:
    lines = [b'{"text": "%d"}\n' % number for number in range(40)]
    first, second = (STREAMS[suffix](b"".join(part)) for part in (lines[:20], lines[20:]))
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(first + second)
    assert len(read(file)) == 40
    for position in (1, 2):
        broken = bytearray(second)
        broken[position] ^= 0xFF
        file.write_bytes(first + bytes(broken))
        assert "a.jsonl" in error(file) and "cannot be read" in error(file)
    file.write_bytes(first + b"something else")
    assert "cannot be read" in error(file)
    file.write_bytes(first + second[:-5])
    assert "cannot be read" in error(file)


def test_padding_between_streams_of_xz(tmp_path) -> None:
    line = lzma.compress(b'{"text": "one"}\n')
    file = tmp_path / "a.jsonl.xz"
    file.write_bytes(line + bytes(4) + line + bytes(8))
    assert read(file) == ["one", "one"]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_no_compressed_file_is_empty(tmp_path, suffix: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", texts("one"))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(b"")
    assert "named as compressed, and it is not" in error(tmp_path)
