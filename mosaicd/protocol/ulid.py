"""Run ids: ULIDs (26 characters of Crockford's base 32; 48 bits of milliseconds, 80 random bits).

Callers pass time and randomness in, so that pure code and simulations can use this module.
"""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


def encode(milliseconds: int, randomness: bytes) -> str:
    """Return the ULID of a Unix time in milliseconds (48 bits) and 10 random bytes."""
    if not 0 <= milliseconds < 1 << 48 or len(randomness) != 10:
        raise ValueError("a ULID takes 48 bits of time and 10 random bytes")
    number = milliseconds << 80 | int.from_bytes(randomness, "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))


def parse(text: str) -> str:
    """Return `text` as a canonical (upper-case) ULID; raise ValueError if it is not a valid ULID."""
    folded = text.upper()
    if len(folded) != LENGTH or any(character not in _VALUES for character in folded):
        raise ValueError(f"{text!r} is not a ULID (26 characters of Crockford's base 32)")
    if folded[0] > "7":
        raise ValueError(f"{text!r} is not a ULID (it is above 128 bits)")
    return folded


def is_ulid(text: object) -> bool:
    """Return whether `text` is a valid ULID, in upper or lower case."""
    if not isinstance(text, str):
        return False
    try:
        parse(text)
    except ValueError:
        return False
    return True
