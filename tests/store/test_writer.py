"""Group commit: work that is sent together shares one COMMIT; a failed work does not affect the others."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mosaicd.protocol.errors import Conflict, Unavailable
from mosaicd.store.database import open_writer
from mosaicd.store.writer import Writer

Statements = list[str]


class Bench:
    """A writer for a table of numbers; records every SQL statement that it ran."""

    def __init__(self, path: Path, delay_s: float) -> None:
        self.connection = open_writer(path)
        self.connection.execute("CREATE TABLE numbers (n INTEGER UNIQUE) STRICT")
        self.seen: Statements = []
        self.connection.set_trace_callback(self.seen.append)
        self.batches = 0
        self.fatal: list[BaseException] = []
        self.writer = Writer(
            self.connection, path, delay_s=delay_s, on_batch=self._count, on_fatal=self.fatal.append
        )

    def _count(self) -> None:
        self.batches += 1

    def insert(self, number: int, **options: Any) -> asyncio.Future[Any]:
        return self.writer.send(inserting(number), **options)

    @property
    def commits(self) -> int:
        return self.seen.count("COMMIT")


def inserting(number: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        return connection.execute("INSERT INTO numbers VALUES (?)", (number,)).lastrowid or 0

    return work


def numbers(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")]
    finally:
        connection.close()


@pytest.fixture
async def bench(path: Path) -> AsyncIterator[Bench]:
    made = Bench(path, delay_s=0.02)
    yield made
    await made.writer.close()


async def test_work_of_one_iteration_shares_a_commit(bench: Bench, path: Path) -> None:
    """A hundred writes of one iteration of the loop share one transaction and one fsync."""
    await asyncio.gather(*(bench.insert(n) for n in range(100)))
    assert (bench.commits, bench.batches) == (1, 1)
    assert numbers(path) == list(range(100))


async def test_work_during_a_commit_shares_the_next(bench: Bench) -> None:
    """Work that arrives while the thread is busy shares the next commit."""
    entered, release = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        entered.set()
        assert release.wait(10)

    first = bench.writer.send(slow)
    await asyncio.to_thread(entered.wait, 10)
    others = []
    for n in range(20):
        others.append(bench.insert(n))
        await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, *others)
    assert bench.commits == 2


async def test_failed_work_does_not_affect_other_work(bench: Bench, path: Path) -> None:
    """In one batch, a broken constraint, a refusal and a wrong type undo only their own work."""

    def refuse(connection: sqlite3.Connection) -> None:
        inserting(77)(connection)
        raise Conflict("no")

    sent = [
        bench.insert(1),
        bench.insert(1),
        bench.writer.send(refuse),
        bench.writer.send(
            lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (object(),))
        ),
        bench.insert(2),
    ]
    done = await asyncio.gather(*sent, return_exceptions=True)
    kinds = [type(answer) for answer in done]
    assert kinds == [int, sqlite3.IntegrityError, Conflict, sqlite3.ProgrammingError, int]
    assert numbers(path) == [1, 2]
    assert bench.commits == 1


async def test_work_that_is_not_urgent_joins_urgent_work(path: Path) -> None:
    """Work that is not urgent waits, and shares the commit of the first urgent work."""
    bench = Bench(path, delay_s=3600)
    not_urgent = bench.insert(1, urgent=False)
    await asyncio.sleep(0)
    assert not not_urgent.done()
    await bench.insert(2)
    assert not_urgent.done()
    assert bench.commits == 1
    await bench.writer.close()


async def test_work_that_is_not_urgent_waits_at_most_the_delay(bench: Bench, path: Path) -> None:
    """Without urgent work, other work is written after the delay."""
    async with asyncio.timeout(30):
        await asyncio.gather(bench.insert(1, urgent=False), bench.insert(2, urgent=False))
    assert bench.commits == 1
    assert numbers(path) == [1, 2]


async def test_settled_callbacks_run_in_order_before_any_result(bench: Bench) -> None:
    """`on_settled` runs for each work in order, then the batch callback; then the futures resolve."""
    order: list[str] = []
    bench.writer._on_batch = lambda: order.append("batch")

    def note(n: int) -> Callable[[Any, BaseException | None], None]:
        return lambda result, error: order.append(f"{n}:{type(error).__name__}")

    sent = [bench.writer.send(inserting(n % 2), note(n)) for n in range(3)]
    sent[0].add_done_callback(lambda future: order.append("answer"))
    await asyncio.gather(*sent, return_exceptions=True)
    assert order == ["0:NoneType", "1:NoneType", "2:IntegrityError", "batch", "answer"]


async def test_a_cancelled_future_does_not_undo_the_work(bench: Bench, path: Path) -> None:
    """The work of a cancelled caller is done, and `on_settled` gets its result."""
    received: list[Any] = []
    future = bench.writer.send(inserting(5), lambda result, error: received.append(result))
    future.cancel()
    await bench.insert(6)
    assert received == [1]
    assert numbers(path) == [5, 6]


async def test_a_failing_callback_delays_no_result(bench: Bench) -> None:
    """An error in a callback is reported to the loop, and waiting callers get their results."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    def fail() -> None:
        raise ZeroDivisionError

    bench.writer._on_batch = fail
    async with asyncio.timeout(30):
        await bench.insert(1)
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_close_writes_sent_work_and_refuses_later_work(path: Path) -> None:
    """Closing writes all work that was sent; later work fails because the daemon is shutting down."""
    bench = Bench(path, delay_s=3600)
    sent = [bench.insert(n, urgent=n % 2 == 0) for n in range(10)]
    await bench.writer.close()
    assert all(future.done() for future in sent)
    assert numbers(path) == list(range(10))
    with pytest.raises(Unavailable):
        bench.insert(11)
    received: list[Any] = []
    bench.writer.post(inserting(12), lambda result, error: received.append(error))
    assert isinstance(received[0], Unavailable)
    await bench.writer.close()  # twice is harmless
    assert not path.with_name(path.name + "-wal").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_unexpected_error_ends_the_writer_and_fails_all_work(path: Path) -> None:
    """A programming error stops the writer and fails its batch, waiting work and later work."""
    bench = Bench(path, delay_s=3600)

    def broken(connection: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    sent = [bench.insert(1), bench.writer.send(broken), bench.insert(2)]
    done = await asyncio.gather(*sent, return_exceptions=True)
    assert {type(answer) for answer in done} == {ZeroDivisionError}
    assert [type(error) for error in bench.fatal] == [ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):
        bench.insert(3)
    assert numbers(path) == []
    await bench.writer.close()


async def test_work_outside_runs_between_transactions(bench: Bench) -> None:
    """A checkpoint cannot run in a transaction, so it runs after the batch that it was sent with."""
    first, state = bench.insert(1), bench.writer.send_outside(lambda connection: connection.in_transaction)
    second = bench.insert(2)
    assert await state is False
    assert first.done()
    await second
    assert bench.commits == 1


async def test_a_lock_of_another_process_is_reported(
    bench: Bench, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock of another process fails the request with a clear error, and the next request succeeds."""
    bench.connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match=r"registry\.sqlite3") as caught:
        await bench.insert(1)
    assert (caught.value.data["reason"], "locked" in caught.value.data["detail"]) == ("registry_disk", True)
    other.execute("ROLLBACK")
    other.close()
    await bench.insert(2)
    assert numbers(path) == [2]
