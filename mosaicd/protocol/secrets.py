"""Which variables hold a secret: the name has a secret word, or the value is a URL with a password.

A word is a part of the name between underscores: API_KEY holds a secret, TOKENIZERS_PARALLELISM and
RAY_AUTH_MODE do not.
"""

from collections.abc import Collection

#: The default of the setting `[environment] secret_words`.
SECRET_WORDS = (
    "KEY", "APIKEY", "TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "PGPASSWORD",
    "CREDENTIAL", "CREDENTIALS",
)  # fmt: skip
#: A shorter value is a switch or a number, and could not be told from ordinary text.
SHORTEST = 8


def is_secret(name: str, value: str, words: Collection[str] = SECRET_WORDS) -> bool:
    """Return whether a variable holds a secret; `words` are in capital letters."""
    if len(value) < SHORTEST:
        return False
    return any(word in words for word in name.upper().split("_")) or _has_password(value)


def _has_password(value: str) -> bool:
    """Return whether a value has the form `scheme://user:password@host`; several URLs may be in one value."""
    for part in value.split("://")[1:]:
        user, at, _ = part.partition("/")[0].rpartition("@")
        if at and ":" in user and user[-1] != ":":
            return True
    return False
