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
        ("10m", NOW - 600), ("90", NOW - 90), ("1d12h", NOW - 129_600), ("@1795298458", 1_795_298_458.0),
        ("2026-11-22T10:30+00:00", datetime.fromisoformat("2026-11-22T10:30+00:00").timestamp()),
        ("2026-11-22", datetime.fromisoformat("2026-11-22").timestamp()), ("9999w", 0.0),
    ],
)  # fmt: skip
def test_every_form_of_a_time_is_accepted(text: str, moment: float) -> None:
    """--since accepts a duration, a date (local without a zone) or seconds since the epoch."""
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "@x", "-5m", "@1e300", "2026-13-01", "@nan"])
def test_invalid_time_is_refused_with_valid_forms(text: str) -> None:
    """An invalid time is an error that names valid forms."""
    with pytest.raises(ValueError, match=r"10m.*2026-11-22T10:30"):
        parse_moment(text, NOW)


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
