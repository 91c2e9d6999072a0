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
        "The daemon does not serve this user, or the user has too many connections. This is logged again "
        "only after an accepted connection of the user has closed.",
        "Request",
        ("access",),
    )
    WATCHER_LAGS = Entry(
        "LOG2403",
        "7bbfca3c650e43d3d57f959a6c013b6a",
        WARNING,
        "watcher {subscription} of uid {uid} is too slow: events {first} to {last} are left out",
        "A client reads the events of its subscription too slowly. The daemon reports the gap to it, and "
        "the client can read these events again from its cursor. This is logged once, until the client "
        "has caught up.",
        "Request",
        ("watch",),
    )
