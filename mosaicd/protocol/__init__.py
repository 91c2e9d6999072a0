"""The vocabulary of daemon, shim, launcher and client: states, methods, errors, framing, file names.

This package imports only the standard library, and no other part of mosaicd.  It does no I/O.  It is the only
package of mosaicd that mosaicctl imports.
"""

from typing import Any

#: Version of the wire protocol, exchanged in `daemon.hello`; separate from the release.
PROTOCOL_VERSION = 1

#: A JSON object.
Json = dict[str, Any]
