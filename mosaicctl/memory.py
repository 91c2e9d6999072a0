"""The note that a memory limit of -m has no effect here."""

import sys

from mosaicctl.client import Client, Disconnected, NoDaemon
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError


def tell_missing_limit(client: Client, params: Json) -> None:
    """After a submit with memory_mb: print a line on standard error if the daemon cannot set the limit.

    The run is accepted; so if the daemon does not answer, nothing is printed and nothing raised.
    """
    if params.get("memory_mb") is None:
        return
    try:
        containment = client.call("daemon.health", {}).get("containment")
    except (MosaicError, NoDaemon, Disconnected):
        return
    if containment and "memory" not in containment.get("enforces", ()):
        sys.stderr.write(
            "mosaicctl: -m is recorded, but it is no limit: this daemon cannot limit memory, or its settings "
            'say [containment] memory = "off"; see mosaicctl health\n'
        )
