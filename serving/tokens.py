"""What the profile engine "computes": token ids of a prompt, its digest, and the words that follow.

Rules:
1. Word i of an answer is a pure function of (digest of the prompt, i): KV of another prompt gives other words.
2. All words have the same width, so that the frame around one can be made once per request.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

VOCABULARY_SIZE = 2**32
_TEXT_VOCABULARY = 50_000
_PIECE = re.compile(r"\w+|[^\w\s]")
_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeiou"
_MASK = 2**64 - 1

WORDS: tuple[bytes, ...] = tuple(
    f" {_CONSONANTS[n >> 4]}{_VOWELS[n % 5]}{_CONSONANTS[n & 15]}{_VOWELS[n % 3]}".encode() for n in range(256)
)
WORD_BYTES = len(WORDS[0])


def tokenize(prompt: str | Sequence[int]) -> Sequence[int]:
    """Token ids: one per word or punctuation mark of a text; ids are taken as they are. Linear."""
    if isinstance(prompt, str):
        return [crc32(piece.encode()) % _TEXT_VOCABULARY for piece in _PIECE.findall(prompt)]
    return prompt


def digest_of(token_ids: Sequence[int]) -> str:
    """16 hexadecimal digits that stand for the KV content of a prompt."""
    return blake2b(array("Q", token_ids).tobytes(), digest_size=8).hexdigest()


def word(seed: int, index: int) -> bytes:
    """Word `index` after the prompt whose digest, read as a number, is `seed`."""
    mixed = (seed ^ (index * 0x9E3779B97F4A7C15)) & _MASK
    return WORDS[((mixed * 0xBF58476D1CE4E5B9) & _MASK) >> 56]


def answer(digest: str, count: int) -> str:
    """The first `count` words as text: what a correct answer must be."""
    seed = int(digest, 16)
    return b"".join(word(seed, index) for index in range(count)).decode()
