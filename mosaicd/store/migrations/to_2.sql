-- Version 2: pins, and what is left of runs that were pruned.

CREATE TABLE pins (
    run_id TEXT PRIMARY KEY REFERENCES runs (run_id),
    who    TEXT NOT NULL,
    at     REAL NOT NULL
) STRICT, WITHOUT ROWID;

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
