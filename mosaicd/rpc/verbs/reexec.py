"""daemon.reexec: have the daemon become the program that is installed now, in the same process.

Input: nothing.  Output: pid, the version that answers and the one that comes.
Caveats: the reply leaves first.  The program is asked before anything is stopped whether it starts; where it
does not, nothing happens and the error says why.  Connections are hung up; a client that connects meanwhile
waits.
"""

import asyncio

from mosaicd.host import reexec
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import NoParams
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: NoParams) -> Json:
    """Look at the program that would come, and begin once the reply is on its way."""
    succession = services.succession
    if succession is None:
        raise Conflict("this daemon cannot replace itself; stop it and start it again")
    settings = services.settings
    to_version = await reexec.check(settings.state_dir, settings.socket, is_passed=succession.is_passed)
    if succession.is_refused:
        raise Conflict("the daemon is stopping")
    asyncio.get_running_loop().call_soon(succession.begin)
    return reexec.answer(to_version)
