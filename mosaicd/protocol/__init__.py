"""The words that daemon, shim, launcher and client share: states, methods, errors, framing, file names.

A leaf of the standard library: nothing here may import anything else of mosaicd, and nothing here
does I/O.  It is the only package of mosaicd that mosaicctl uses.
"""

from typing import Any

#: Version of the wire protocol, exchanged in `daemon.hello`; separate from the release.
PROTOCOL_VERSION = 1

#: A JSON object.
Json = dict[str, Any]
