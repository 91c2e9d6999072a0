"""The daemon's log: journal records with fields, or lines on stderr; secrets are withheld."""

import array
import io
import logging
import mmap
import os
import re
import socket
import struct
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from mosaicd import journald, log
from mosaicd.journald import Journal
from mosaicd.log import ENTRIES, Catalogue, JournalHandler, LineFormatter


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    """Yield a datagram socket that stands for the socket of journald."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(tmp_path / "journal"))
        received.settimeout(10)
        yield received


@pytest.fixture
def to_journal(receiver: socket.socket) -> Iterator[JournalHandler]:
    """Yield a journal handler on the loggers of mosaicd, connected to the receiver."""
    handler = JournalHandler(Journal(receiver.getsockname()))
    handler.setFormatter(LineFormatter())
    root = logging.getLogger("mosaicd")
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Yield the log on stderr, at level info."""
    stream = io.StringIO()
    handler = log.setup("info", stream=stream)
    yield stream
    logging.getLogger().removeHandler(handler)
    handler.close()


def decoded(record: bytes) -> dict[str, str]:
    """Return the fields of a record in journald's protocol."""
    fields = {}
    while record:
        line, _, record = record.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            (size,) = struct.unpack("<Q", record[:8])
            value, record = record[8 : 8 + size], record[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def test_an_event_arrives_with_its_fields(receiver: socket.socket, to_journal: JournalHandler) -> None:
    """A record has code, MESSAGE_ID, priority, the identifier mosaicd, and its fields in capitals."""
    log.event(Catalogue.RUN_ENDED, run_id="01X", outcome="failed", attempt=2, seq=17, cause={"kind": "oom"})
    fields = decoded(receiver.recv(65536))
    assert fields["MESSAGE"] == "run 01X ended: failed"
    assert fields["MESSAGE_ID"] == Catalogue.RUN_ENDED.message_id
    assert (fields["LOG_CODE"], fields["MOSAIC_EVENT"]) == (Catalogue.RUN_ENDED.code, "RUN_ENDED")
    assert (fields["LOG_COMPONENT"], fields["LOG_SUBCOMPONENT"]) == ("Daemon", "Run")
    assert fields["LOG_TAGS"] == "lifecycle"
    assert fields["PRIORITY"] == "6"
    assert fields["SYSLOG_IDENTIFIER"] == "mosaicd"
    assert (fields["RUN_ID"], fields["ATTEMPT"], fields["SEQ"]) == ("01X", "2", "17")
    assert fields["CAUSE"] == '{"kind": "oom"}'
    assert fields["CODE_FUNC"] == "test_an_event_arrives_with_its_fields"


def test_text_of_many_lines_is_one_record(receiver: socket.socket, to_journal: JournalHandler) -> None:
    """A traceback with its newlines is one field."""
    try:
        raise ValueError("bad\nthing")
    except ValueError as error:
        log.event(Catalogue.REQUEST_FAILED, method="run.stop", reference="abc", error=error)
    fields = decoded(receiver.recv(65536))
    assert fields["PRIORITY"] == "3"
    assert "\n" not in fields["MESSAGE"]
    assert fields["TRACEBACK"].endswith("ValueError: bad\nthing")


def test_a_big_record_is_sent_as_a_sealed_file(receiver: socket.socket, to_journal: JournalHandler) -> None:
    """A record above the datagram limit arrives in a sealed memory file."""
    big = "x" * 3_000_000
    log.logger("mosaicd.test").info("%s", big)
    fds = array.array("i")
    data, ancillary, _, _ = receiver.recvmsg(16, socket.CMSG_SPACE(fds.itemsize))
    assert data == b""
    fds.frombytes(ancillary[0][2][: fds.itemsize])
    with open(fds[0], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert decoded(content[:])["MESSAGE"] == big
        with pytest.raises(PermissionError):
            os.ftruncate(file.fileno(), 0)


def test_a_slow_journal_does_not_block_the_daemon(
    receiver: socket.socket, to_journal: JournalHandler
) -> None:
    """If the journal does not read, records are dropped and counted; the count is logged when there is
    room."""
    logger = log.logger("mosaicd.test")
    sent = 0
    while not to_journal.journal.dropped:
        logger.info("record %d", sent)
        sent += 1
        assert sent < 100_000
    receiver.recv(65536)
    logger.info("room for this one, not for the count")
    receiver.recv(65536)
    receiver.recv(65536)
    logger.info("room for both")
    receiver.setblocking(False)
    records = []
    try:
        while True:
            records.append(decoded(receiver.recv(65536)))
    except BlockingIOError:
        pass
    assert (records[-1]["LOG_CODE"], records[-1]["COUNT"]) == (Catalogue.LOG_DROPPED.code, "1")


def test_without_a_journal_records_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the journal's socket is missing, a record becomes a line on stderr."""
    handler = JournalHandler(Journal(str(tmp_path / "missing")))
    handler.setFormatter(LineFormatter())
    handler.emit(logging.LogRecord("mosaicd", logging.INFO, __file__, 1, "sentence", (), None))
    handler.close()
    assert " INFO sentence" in capsys.readouterr().err


def test_the_journal_is_used_only_when_stderr_is_its_stream(tmp_path: Path) -> None:
    """JOURNAL_STREAM counts only if it has device and inode of stderr, so not for a redirected stderr."""
    file = tmp_path / "stderr"
    with file.open("w") as stream:
        status = os.fstat(stream.fileno())
        assert journald.is_journal_stream(f"{status.st_dev}:{status.st_ino}", stream.fileno())
        assert not journald.is_journal_stream(f"{status.st_dev}:{status.st_ino + 1}", stream.fileno())
    assert not journald.is_journal_stream(None)
    assert not journald.is_journal_stream("", 1000)


def test_a_wrong_field_name_is_refused() -> None:
    """A field name that journald would drop silently raises ValueError."""
    with pytest.raises(ValueError, match="_PID"):
        journald.encode({"_PID": "1"})


def test_lines_are_readable(lines: io.StringIO) -> None:
    """On stderr a record is one line: time, level, code, sentence, and the fields that the sentence omits."""
    log.event(Catalogue.RUN_DISPATCHED, run_id="01X", attempt=1, slots=[0, 1], reason=None)
    log.logger("mosaicd.x").debug("not shown at info")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\S+ INFO LOG2202 run 01X attempt 1 dispatched \(slots=\[0, 1\]\)\n",
        lines.getvalue(),
    )


def test_a_name_cannot_forge_a_line(lines: io.StringIO) -> None:
    """Control characters in the name of a run are escaped."""
    log.event(Catalogue.RUN_SUBMITTED, run_id="01X", name="a\n2026 INFO forged\x1b[31m", owner="ada")
    assert lines.getvalue().count("\n") == 1
    assert "a\\n2026 INFO forged\\x1b[31m" in lines.getvalue()


def test_a_field_that_is_missing_is_a_dash(lines: io.StringIO) -> None:
    """A record that lacks a field of its sentence is logged with a dash."""
    log.event(Catalogue.RUN_ENDED, run_id="01X")
    log.event(Catalogue.RECONCILED)
    assert "run 01X ended: -" in lines.getvalue()
    assert Catalogue.RECONCILED.code in lines.getvalue()


def test_secrets_are_withheld(lines: io.StringIO) -> None:
    """The value of a field named like an environment, a secret or a token is never logged, at any depth."""
    log.event(
        Catalogue.RUN_SUBMITTED, run_id="01X", name="n", owner="ada", environment={"A": "s3cret"},
        session_token="s3cret", run={"spec": [{"launch_secret": "s3cret", "env": {"B": "s3cret"}}]},
    )  # fmt: skip
    assert "s3cret" not in lines.getvalue()
    assert "environment=(withheld)" in lines.getvalue()


def test_libraries_log_from_level_warning_on(lines: io.StringIO) -> None:
    """Warnings of libraries are in the log; their info records are not."""
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    assert "chatter" not in lines.getvalue()
    assert "WARNING trouble" in lines.getvalue()


def test_codes_and_message_ids_are_well_formed_and_unique() -> None:
    """Each entry has a unique code, name and 128-bit message id."""
    for read, form in (
        (attrgetter("code"), r"LOG2\d{3}"),
        (attrgetter("message_id"), r"[0-9a-f]{32}"),
        (attrgetter("name"), r"[A-Z]+(_[A-Z]+)*"),
    ):
        values = [read(entry) for entry in ENTRIES]
        assert len(set(values)) == len(values)
        assert all(re.fullmatch(form, value) for value in values)


def test_entry_names_are_unique_and_codes_match_their_subcomponent() -> None:
    """No two areas of the catalogue share a name, and the codes of a subcomponent share their hundreds."""
    assert {entry.name for entry in ENTRIES} == {name for name in dir(Catalogue) if name.isupper()}
    hundreds = {(entry.subcomponent, entry.code[:-2]) for entry in ENTRIES}
    assert len(hundreds) == len({name for name, _ in hundreds}) == len({code for _, code in hundreds})


def test_every_entry_is_explained() -> None:
    """An entry has a sentence, an explanation that ends with a full stop, a component and tags."""
    for entry in ENTRIES:
        assert entry.sentence and entry.explanation.endswith("."), entry
        assert entry.component and entry.tags, entry


def test_the_journal_catalogue_has_every_entry() -> None:
    """The catalogue file for `journalctl -x` has a block for each entry, in journald's form."""
    text = "\n".join(log.journal_catalogue())
    assert re.findall("^-- ([0-9a-f]{32})$", text, re.MULTILINE) == [entry.message_id for entry in ENTRIES]
    assert text.count("Subject: ") == text.count("Defined-By: mosaicd") == len(ENTRIES)
