"""Log records about connections and requests."""

from mosaicd.catalogue.entry import ERROR, WARNING, Entry


class RequestEntries:
    """LOG2400 to LOG2499."""

    REQUEST_FAILED = Entry(
        "LOG2401",
        "d5e64832a1878fff741550231e9fa7a1",
        ERROR,
        "request {method} failed because of an internal error, reference {reference}",
        "The daemon has a defect. The client got the reference if it still waited for the reply. "
        "Please report the defect with the traceback, which is in this log record.",
        "Request",
        ("defect",),
    )
    PEER_REFUSED = Entry(
        "LOG2402",
        "f31082aab6b21aee44af6335fcaff047",
        WARNING,
        "a connection of uid {uid} is refused: {why}",
        "The daemon does not serve this user, or the user has too many connections. This is logged once, "
        "until the user has a connection again.",
        "Request",
        ("access",),
    )
    WATCHER_LAGS = Entry(
        "LOG2403",
        "7bbfca3c650e43d3d57f959a6c013b6a",
        WARNING,
        "watcher {subscription} of uid {uid} is too slow: events {first} to {last} are left out",
        "A client does not read the events that it asked for. It was told which events are left out and "
        "can read them again from its cursor. This is logged once, until the client has caught up.",
        "Request",
        ("watch",),
    )
