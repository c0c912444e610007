"""What of a store is there. This is the one rule of presence: a chunk is there when its rows and
its statistics are; all who ask (writer, reader, verification, progress) ask here.
"""

from collections.abc import Iterable, Sequence

from cpsae.store.bucket import Bucket
from cpsae.store.layout import Chunk, Manifest


class Listing:
    """Presence and size of the objects of these chunks, as they are when it is made."""

    def __init__(self, bucket: Bucket, chunks: Iterable[Chunk]) -> None:
        self.chunks = list(chunks)
        keys = (key for chunk in self.chunks for key in chunk.objects())
        self._sizes = bucket.sizes(keys)

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is there."""
        return all(key in self._sizes for key in chunk.objects())

    def has_rows(self, chunk: Chunk) -> bool:
        """Whether its rows are, with or without the statistics that follow from them."""
        return chunk.key in self._sizes

    def present(self) -> list[Chunk]:
        """The chunks that are there."""
        return [chunk for chunk in self.chunks if self.has(chunk)]

    def missing(self) -> list[Chunk]:
        """The chunks that are not."""
        return [chunk for chunk in self.chunks if not self.has(chunk)]

    def missing_keys(self, chunk: Chunk) -> list[str]:
        """The objects of a chunk that are not there."""
        return [key for key in chunk.objects() if key not in self._sizes]

    def wrong_sizes(self, chunk: Chunk) -> dict[str, tuple[int, int]]:
        """Objects of a chunk that are there in another size: their size, and the right one."""
        return {
            key: (self._sizes[key], size)
            for key, size in chunk.objects().items()
            if key in self._sizes and self._sizes[key] != size
        }


def missing_tokens(bucket: Bucket, manifest: Manifest) -> list[str]:
    """The objects of tokens that are not there."""
    keys = [key for part in manifest.parts() for key in part.token_keys()]
    there = bucket.sizes(keys)
    return [key for key in keys if key not in there]


def in_words(present: Sequence[Chunk], chunks: Sequence[Chunk]) -> str:
    """How much is there."""
    return f"{len(present)} of {len(chunks)} chunks"
