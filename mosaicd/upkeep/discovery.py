"""Discover the installed workers: run each configured interpreter in a process that lists its workers.

The environments of workers may be incompatible with each other, so the daemon imports no worker.  The process
runs the file discovery.py of mosaic_worker by its path: an environment need not have mosaic_worker.  If an
interpreter is broken, slow or silent, its workers are listed with the error; other workers are not affected.
"""

import asyncio
import json
import os
import pwd
import sys
from pathlib import Path

from mosaicd import log
from mosaicd.config import Settings, Worker
from mosaicd.log import Catalogue
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Draining

ANSWER_LIMIT_BYTES = 4 << 20
PATH = "/usr/local/bin:/usr/bin:/bin"
STOPPING = "the daemon is stopping; try again"

#: The description of a worker by its interpreter.
Row = Json
Rows = list[Row]


def discovery_file() -> Path:
    """Return the path of mosaic_worker/discovery.py: in workers/ of a checkout, else as the wheel has it.

    The file needs only the standard library of the interpreter that runs it.
    """
    package = Path(__file__).resolve().parents[1]
    in_checkout = package.parent / "workers/sdk/mosaic_worker/discovery.py"
    return in_checkout if in_checkout.exists() else package / "upkeep/list_workers.py"


class Discovery:
    """The installed workers, as the configured interpreters list them.

    The list is cached; concurrent callers share one query of all interpreters.
    """

    def __init__(self, settings: Settings) -> None:
        self._workers = settings.workers
        self._limit_s = settings.timeouts.discovery_s
        self._arguments = (str(discovery_file()), "--json")
        self._environment = _environment()
        self._query: asyncio.Task[Rows] | None = None
        self._known: Rows | None = None
        self._is_closed = False

    async def list(self, refresh: bool = False) -> Rows:
        """Return every worker: kind, module, python, metadata, capabilities, config_schema, error.

        Raises Draining if the daemon stops before all interpreters have answered.
        """
        if self._known is not None and not refresh:
            return self._known
        if self._is_closed:
            raise Draining(STOPPING)
        if self._query is None:
            self._query = asyncio.get_running_loop().create_task(self._query_all())
            self._query.add_done_callback(self._keep_result)
        query = self._query
        await asyncio.wait((query,))  # a cancelled caller does not cancel the query of the others
        if query.cancelled():
            raise Draining(STOPPING)
        return query.result()

    async def lookup(self, module: str) -> Row | None:
        """Return the usable worker that `python -m module` runs, or None."""
        rows = await self.list()
        return next((row for row in rows if row.get("module") == module and not row.get("error")), None)

    async def close(self) -> None:
        """Cancel the query in progress; later calls raise Draining."""
        self._is_closed = True
        if self._query is not None:
            self._query.cancel()
            await asyncio.gather(self._query, return_exceptions=True)

    def _keep_result(self, task: "asyncio.Task[Rows]") -> None:
        self._query = None
        if not task.cancelled() and task.exception() is None:
            self._known = task.result()

    async def _query_all(self) -> Rows:
        """Return the workers of all interpreters; log those that cannot be used."""
        pythons = {sys.executable, *(worker.python for worker in self._workers.values())}
        answers = dict(zip(pythons, await asyncio.gather(*map(self._query_python, pythons)), strict=True))
        rows = {row["kind"]: row for row in _own_workers(answers[sys.executable], sys.executable)}
        for kind, worker in self._workers.items():
            rows[kind] = _configured(kind, worker, answers[worker.python])
        for row in rows.values():
            if row.get("error"):
                log.event(Catalogue.WORKER_KIND_BROKEN, kind=row["kind"], why=row["error"])
        return sorted(rows.values(), key=lambda row: str(row["kind"]))

    async def _query_python(self, python: str) -> Rows | str:
        """Return the workers that one interpreter lists, or the error as text."""
        try:
            process = await asyncio.create_subprocess_exec(
                python, *self._arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, env=self._environment, start_new_session=True, cwd="/",
                limit=ANSWER_LIMIT_BYTES,
            )  # fmt: skip
        except OSError as error:
            return f"{python} cannot be started: {error.strerror}"
        try:
            async with asyncio.timeout(self._limit_s):
                out, err = await process.communicate()
        except TimeoutError:
            return f"{python} did not answer within {self._limit_s:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read_answer(python, process.returncode, out, err)


def _read_answer(python: str, code: int | None, out: bytes, err: bytes) -> Rows | str:
    try:
        answer = json.loads(out)
    except ValueError:
        lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
        return f"{python}: {lines[-1][:300]}" if lines else f"{python} printed nothing (exit code {code})"
    workers = answer.get("workers") if isinstance(answer, dict) else answer
    if not isinstance(workers, list):
        return f"{python} printed JSON that is not a list of workers"
    return [worker for worker in workers if isinstance(worker, dict)]


def _own_workers(answer: Rows | str, python: str) -> Rows:
    """Return the workers in the daemon's environment; if they cannot be listed, log why and return none."""
    if isinstance(answer, str):
        log.event(Catalogue.NO_OWN_WORKERS, why=answer)
        return []
    return [{**row, "python": python} for row in answer if isinstance(row.get("kind"), str)]


def _configured(kind: str, worker: Worker, answer: Rows | str) -> Row:
    """Return the row of one [workers.KIND] section."""
    empty = {"kind": kind, "module": worker.module, "python": worker.python}
    if isinstance(answer, str):
        return {**empty, "error": answer}
    rows = [row for row in answer if row.get("kind") == kind]
    rows = rows or [row for row in answer if worker.module is not None and row.get("module") == worker.module]
    if not rows:
        # A configured module can run all the same; only its capabilities are unknown.
        missing = None if worker.module else f"{worker.python} has no worker {kind!r}"
        return {**empty, "metadata": None, "capabilities": None, "error": missing}
    return {**rows[0], **empty, "module": worker.module or rows[0].get("module")}


def _environment() -> dict[str, str]:
    """Return the minimal environment of an interpreter, without variables of the daemon (NOTIFY_SOCKET)."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = "/"
    return {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8"}
