"""daemon.hello: check the protocol version of a client.

Input: the client's protocol version and name.  Output: the daemon's versions, the epoch and last seq of the
ledger, the caller's user.
Caveats: also answered while the daemon starts; raises Conflict for another protocol version.
"""

from mosaicd import __version__
from mosaicd.protocol import PROTOCOL_VERSION, Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import Hello
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: Hello) -> Json:
    """Return versions, ledger and user."""
    if params.proto_version != PROTOCOL_VERSION:
        raise Conflict(
            f"this daemon speaks protocol {PROTOCOL_VERSION}, not {params.proto_version}",
            protocol=PROTOCOL_VERSION,
        )
    return {
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "epoch": services.registry.epoch,
        "last_seq": services.broadcaster.last_seq,
        "ready": services.ready.is_set(),
        "user": caller.name,
        "uid": caller.uid,
        "is_admin": caller.is_admin,
        "at": services.clock.wall(),
    }
