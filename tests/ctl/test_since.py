"""--since: its forms, and the message for output that was not kept."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from mosaicctl.moment import parse_moment
from tests.ctl.scripted import Peer, ScriptedDaemon, a_chunk, a_run

Ctl = Callable[..., tuple[int, str, str]]
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", NOW - 600), ("90s", NOW - 90), ("1d12h", NOW - 129_600), ("0", NOW),
        ("@1795298458", 1_795_298_458.0),
        ("2026-11-22T10:30+00:00", datetime.fromisoformat("2026-11-22T10:30+00:00").timestamp()),
        ("2026-11-22", datetime.fromisoformat("2026-11-22").timestamp()), ("9999w", 0.0),
    ],
)  # fmt: skip
def test_every_form_of_a_time_is_accepted(text: str, moment: float) -> None:
    """--since accepts a duration, a date (local without a zone) or seconds since the epoch."""
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "@x", "-5m", "@1e300", "2026-13-01", "@nan", "12:61", "24:00"]
)
def test_invalid_time_is_refused_with_valid_forms(text: str) -> None:
    """An invalid time is an error that names valid forms."""
    with pytest.raises(ValueError, match=r"10m.*2026-11-22T10:30"):
        parse_moment(text, NOW)


def test_a_bare_number_is_no_time() -> None:
    """--since refuses a number without a unit and offers seconds and minutes."""
    with pytest.raises(ValueError, match=r"90s or 90m"):
        parse_moment("90", NOW)


@pytest.mark.parametrize(
    ("text", "now", "moment"),
    [
        ("10:30", "2026-11-22T11:00", "2026-11-22T10:30"),
        ("9:05", "2026-11-22T11:00", "2026-11-22T09:05"),
        ("10:30:15", "2026-11-22T11:00", "2026-11-22T10:30:15"),
        ("10:30", "2026-11-22T10:30", "2026-11-22T10:30"),
        ("10:30", "2026-11-22T10:29:59", "2026-11-21T10:30"),
        ("23:59", "2026-03-01T00:00", "2026-02-28T23:59"),
    ],
)
def test_a_time_of_day_is_the_last_one(text: str, now: str, moment: str) -> None:
    """`--since 10:30` is half past ten today in local time, or yesterday if that is still in the future."""
    found = parse_moment(text, datetime.fromisoformat(now).timestamp())
    assert found == datetime.fromisoformat(moment).timestamp()


def test_logs_since_reports_missing_output(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`logs --since` sends the time once; missing output is reported on standard error only."""
    requests: list[dict[str, Any]] = []

    def logs(params: dict[str, Any], peer: Peer) -> object:
        requests.append(params)
        if len(requests) == 1:
            return a_chunk(b"tail\n", 1005, offset=1000, gap={"from": 400, "to": 1000}, attempt=1, eof=True)
        return a_chunk(b"", 1005, offset=1005, gap=None, attempt=1, eof=True)

    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = logs
    code, out, err = ctl("logs", "--since", "10m", a_run()["run_id"])
    assert (code, out) == (0, "tail\n")
    assert "600 B of stdout" in err and "400 to 1000" in err
    assert abs(requests[0]["since"] - (time.time() - 600)) < 60
    assert all("since" not in params and params["cursor"] == 1005 for params in requests[1:])


def test_invalid_time_exits_2(ctl: Ctl) -> None:
    """An invalid time exits with 2, the option and the value."""
    code, _, err = ctl("logs", "--since", "yesterday", "x")
    assert code == 2
    assert "--since: 'yesterday'" in err


def test_missing_post_mortem_is_reported(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`logs --post-mortem` of a run without one reports that on standard error."""
    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = lambda params, peer: a_chunk(
        b"", 0, offset=0, gap=None, attempt=1, eof=True
    )
    code, out, err = ctl("logs", "--post-mortem", a_run()["run_id"])
    assert (code, out) == (0, "")
    assert "post-mortem" in err
