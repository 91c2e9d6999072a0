"""daemon.reexec: replace the daemon with the program that is installed now, in the same process.

Input: nothing.  Output: pid, the running version and the installed version.
Caveats: the reply leaves first.  Before anything is stopped, the installed program is run with `--check`; if
that fails, nothing changes and the error has the reason.  Connections are closed; a client that connects
meanwhile waits.
"""

import asyncio

from mosaicd.host import reexec
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import NoParams
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: NoParams) -> Json:
    """Check the installed program, and begin the replacement after the reply."""
    succession = services.succession
    if succession is None:
        raise Conflict("this daemon cannot replace itself; stop it and start it again")
    settings = services.settings
    to_version = await reexec.check(settings.state_dir, settings.socket, is_passed=succession.is_passed)
    if succession.is_forbidden:
        raise Conflict("the daemon is stopping")
    asyncio.get_running_loop().call_soon(succession.begin)
    return reexec.answer(to_version)
