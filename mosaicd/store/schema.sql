-- The schema of a new registry (user_version 2).  migrations/ bring older files to it.
--
-- Constraints and triggers repeat the invariants of the lifecycle, so that neither a bug nor a manual UPDATE
-- can break them.  Words in CHECKs are stored values: never rename one.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each run.  `n` is the order of submission; a number is never used again.  `body` holds the fields
-- without a column; `progress` holds last values, which change without a new revision.
CREATE TABLE runs (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id      TEXT NOT NULL UNIQUE CHECK (length(run_id) = 26),
    name        TEXT NOT NULL,
    owner_uid   INTEGER NOT NULL,
    owner       TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('INIT', 'HSHK', 'RDY', 'EXEC', 'PAUSE', 'FAULT', 'TERM')),
    released    INTEGER NOT NULL CHECK (released IN (0, 1)),
    want        TEXT NOT NULL CHECK (want IN ('run', 'pause', 'stop')),
    outcome     TEXT CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'timeout', 'interrupted')),
    cause_kind  TEXT,
    rev         INTEGER NOT NULL CHECK (rev >= 1),
    digest      TEXT NOT NULL,
    key         TEXT,
    priority    INTEGER NOT NULL,
    created_at  REAL NOT NULL,
    finished_at REAL,
    body        TEXT NOT NULL CHECK (json_valid(body) AND json_type(body) = 'object'),
    progress    TEXT NOT NULL CHECK (json_valid(progress) AND json_type(progress) = 'object'),
    CHECK ((state = 'TERM') = (outcome IS NOT NULL)),
    CHECK ((state = 'TERM') = (finished_at IS NOT NULL)),
    CHECK (released = 0 OR state = 'PAUSE')
) STRICT;

CREATE INDEX runs_live ON runs (owner_uid, digest) WHERE state <> 'TERM';
CREATE INDEX runs_live_order ON runs (n) WHERE state <> 'TERM';
CREATE UNIQUE INDEX runs_key ON runs (owner_uid, key) WHERE key IS NOT NULL;
CREATE INDEX runs_owner ON runs (owner_uid, n);
CREATE INDEX runs_name ON runs (name, n);

-- The ledger.  A replay of the events of a run gives its row; state, want and outcome are those after the event.
CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id  TEXT NOT NULL REFERENCES runs (run_id),
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    rev     INTEGER NOT NULL CHECK (rev >= 1),
    kind    TEXT NOT NULL,
    at      REAL NOT NULL,
    who     TEXT NOT NULL,
    data    TEXT NOT NULL CHECK (json_valid(data) AND json_type(data) = 'object'),
    state   TEXT NOT NULL CHECK (state IN ('INIT', 'HSHK', 'RDY', 'EXEC', 'PAUSE', 'FAULT', 'TERM')),
    want    TEXT NOT NULL CHECK (want IN ('run', 'pause', 'stop')),
    outcome TEXT CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'timeout', 'interrupted')),
    UNIQUE (run_id, rev),
    CHECK ((state = 'TERM') = (outcome IS NOT NULL))
) STRICT;

-- The run that holds each GPU slot; the primary key prevents two holders.
CREATE TABLE slots (
    slot   INTEGER PRIMARY KEY CHECK (slot >= 0),
    run_id TEXT NOT NULL REFERENCES runs (run_id)
) STRICT;

CREATE INDEX slots_run ON slots (run_id);

-- Quarantined runs: invalid rows, moved here unchanged.
CREATE TABLE quarantine (
    n ANY, run_id ANY, name ANY, owner_uid ANY, owner ANY, state ANY, released ANY, want ANY, outcome ANY,
    cause_kind ANY, rev ANY, digest ANY, key ANY, priority ANY, created_at ANY, finished_at ANY, body ANY,
    progress ANY,
    slots TEXT NOT NULL,
    why   TEXT NOT NULL,
    at    REAL NOT NULL
) STRICT;

CREATE TABLE quarantined_events (
    seq ANY, run_id ANY, attempt ANY, rev ANY, kind ANY, at ANY, who ANY, data ANY, state ANY, want ANY,
    outcome ANY
) STRICT;

-- Pinned runs, which retention never removes.  A pin is not an event, because a run may be pinned after its end.
CREATE TABLE pins (
    run_id TEXT PRIMARY KEY REFERENCES runs (run_id),
    who    TEXT NOT NULL,
    at     REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Pruned runs: their ids and keys are never used again, and a request for one gets a clear answer.
-- `removed`: the directory of the run is removed.
CREATE TABLE pruned (
    run_id      TEXT PRIMARY KEY CHECK (length(run_id) = 26),
    owner_uid   INTEGER NOT NULL,
    name        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    key         TEXT,
    outcome     TEXT NOT NULL,
    created_at  REAL NOT NULL,
    finished_at REAL NOT NULL,
    last_seq    INTEGER NOT NULL,
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    who         TEXT NOT NULL,
    at          REAL NOT NULL,
    removed     INTEGER NOT NULL CHECK (removed IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX pruned_key ON pruned (owner_uid, key) WHERE key IS NOT NULL;
CREATE INDEX pruned_left ON pruned (run_id) WHERE removed = 0;
CREATE INDEX pruned_seq ON pruned (last_seq);

CREATE TRIGGER term_is_final BEFORE UPDATE ON runs
WHEN OLD.state = 'TERM'
BEGIN
    SELECT RAISE(ABORT, 'a run in TERM does not change');
END;

CREATE TRIGGER rev_only_grows BEFORE UPDATE OF rev ON runs
WHEN NEW.rev <= OLD.rev
BEGIN
    SELECT RAISE(ABORT, 'the revision of a run only grows');
END;

CREATE TRIGGER nothing_changes_without_a_rev BEFORE UPDATE ON runs
WHEN NEW.rev = OLD.rev AND (
    NEW.name IS NOT OLD.name OR NEW.state IS NOT OLD.state OR NEW.released IS NOT OLD.released
    OR NEW.want IS NOT OLD.want OR NEW.outcome IS NOT OLD.outcome OR NEW.cause_kind IS NOT OLD.cause_kind
    OR NEW.priority IS NOT OLD.priority OR NEW.finished_at IS NOT OLD.finished_at OR NEW.body IS NOT OLD.body)
BEGIN
    SELECT RAISE(ABORT, 'a run changes only with a new revision');
END;

CREATE TRIGGER identity_stays BEFORE UPDATE OF n, run_id, owner_uid, owner, digest, key, created_at ON runs
BEGIN
    SELECT RAISE(ABORT, 'id, owner, digest, key and birth of a run never change');
END;

CREATE TRIGGER waiting_and_ended_hold_nothing BEFORE UPDATE OF state, released ON runs
WHEN (NEW.state IN ('INIT', 'TERM') OR NEW.released = 1)
    AND EXISTS (SELECT 1 FROM slots WHERE slots.run_id = NEW.run_id)
BEGIN
    SELECT RAISE(ABORT, 'a run that waits or ended holds no slots');
END;

CREATE TRIGGER slots_need_a_holder BEFORE INSERT ON slots
WHEN NOT EXISTS (
    SELECT 1 FROM runs WHERE run_id = NEW.run_id AND state NOT IN ('INIT', 'TERM') AND released = 0)
BEGIN
    SELECT RAISE(ABORT, 'only a run that is being carried out holds slots');
END;

CREATE TRIGGER slots_do_not_move BEFORE UPDATE ON slots
BEGIN
    SELECT RAISE(ABORT, 'a slot is given back before it is handed out again');
END;

CREATE TRIGGER the_ledger_is_append_only BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events do not change');
END;

CREATE TRIGGER only_ended_runs_are_pruned BEFORE INSERT ON pruned
WHEN NOT EXISTS (SELECT 1 FROM runs WHERE run_id = NEW.run_id AND state = 'TERM')
    OR EXISTS (SELECT 1 FROM pins WHERE run_id = NEW.run_id)
BEGIN
    SELECT RAISE(ABORT, 'only a run that has ended and is not pinned is pruned');
END;

CREATE TRIGGER an_id_is_used_once BEFORE INSERT ON runs
WHEN EXISTS (SELECT 1 FROM pruned WHERE run_id = NEW.run_id)
BEGIN
    SELECT RAISE(ABORT, 'the id of a pruned run is not used again');
END;
