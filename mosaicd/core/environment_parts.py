"""The three parts of a run's environment, by how long their values are kept.

Secrets live until the end of the run.  The other variables are kept with the run: those of the caller's
shell, which many runs have in common, and those that the submit or its config gave.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from mosaicd.protocol.secrets import is_secret


class Parts(NamedTuple):
    """Variables without a name in common; together they are the submitted environment of a run."""

    caller: dict[str, str]
    given: dict[str, str]
    secret: dict[str, str]

    @property
    def kept(self) -> dict[str, str]:
        """The variables that are kept after the end of the run."""
        return self.caller | self.given

    @property
    def all(self) -> dict[str, str]:
        """The submitted environment."""
        return self.caller | self.given | self.secret


def parts_of(environment: Mapping[str, str], given: Collection[str], secret_words: Collection[str]) -> Parts:
    """Return the parts of `environment`; `given` has the names of the submit and its config."""
    parts = Parts({}, {}, {})
    for name, value in environment.items():
        is_kept = not is_secret(name, value, secret_words)
        part = parts.secret if not is_kept else parts.given if name in given else parts.caller
        part[name] = value
    return parts
