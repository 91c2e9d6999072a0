-- Every statement of the registry: a name, a sentence, the SQL.  Loaded once by statements.py.

-- name: epoch
-- The name of this ledger: cursors of another epoch mean nothing here.
SELECT value FROM meta WHERE name = 'epoch';

-- name: set_epoch
-- Name a new ledger.
INSERT INTO meta (name, value) VALUES ('epoch', ?);

-- name: insert_run
-- A new run.
INSERT INTO runs (run_id, name, owner_uid, owner, state, released, want, outcome, cause_kind, rev, digest, key,
    priority, created_at, finished_at, body, progress)
VALUES (:run_id, :name, :owner_uid, :owner, :state, :released, :want, :outcome, :cause_kind, :rev, :digest, :key,
    :priority, :created_at, :finished_at, :body, :progress);

-- name: update_run
-- The row after events, if nobody else moved it since it stood at revision `was`.
UPDATE runs SET name = :name, state = :state, released = :released, want = :want, outcome = :outcome,
    cause_kind = :cause_kind, rev = :rev, priority = :priority, finished_at = :finished_at, body = :body,
    progress = coalesce(:progress, progress)
WHERE run_id = :run_id AND rev = :was;

-- name: update_progress
-- Last values alone; a run that ended keeps those it ended with.
UPDATE runs SET progress = ? WHERE run_id = ? AND state <> 'TERM';

-- name: insert_event
-- One event; its rowid is the seq.
INSERT INTO events (run_id, attempt, rev, kind, at, who, data, state, want, outcome)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: give_back_slots
-- Free every slot of a run.
DELETE FROM slots WHERE run_id = ?;

-- name: take_slot
-- Claim a slot; fails where it has an owner.
INSERT INTO slots (slot, run_id) VALUES (?, ?);

-- name: holder
-- Who holds a slot.
SELECT run_id FROM slots WHERE slot = ?;

-- name: slots_of
-- The slots of a run.
SELECT slot FROM slots WHERE run_id = ? ORDER BY slot;

-- name: last_seq
-- The highest seq ever given out.
SELECT seq FROM sqlite_sequence WHERE name = 'events';

-- name: live_runs
-- Every run that has not ended, in the order of submission.
SELECT * FROM runs WHERE state <> 'TERM' ORDER BY n;

-- name: get_run
-- One run by its full id.
SELECT * FROM runs WHERE run_id = ?;

-- name: run_with_key
-- The run that an owner submitted under an idempotency key, ended or not.
SELECT * FROM runs WHERE owner_uid = ? AND key = ?;

-- name: live_run_with_digest
-- The newest live run of an owner with the same canonical config; one that is being stopped does no more work.
SELECT * FROM runs WHERE owner_uid = ? AND digest = ? AND state <> 'TERM' AND want <> 'stop'
ORDER BY n DESC LIMIT 1;

-- name: runs_with_prefix
-- Runs whose id begins with a prefix: as many as tell "one" from "several" with examples.
SELECT run_id, name FROM runs
WHERE run_id >= :prefix AND run_id < :prefix || '~' AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
ORDER BY n DESC LIMIT 10;

-- name: newest_named
-- The newest run with a name.
SELECT * FROM runs WHERE name = :name AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
ORDER BY n DESC LIMIT 1;

-- name: events_since
-- The ledger from a cursor on.
SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?;

-- name: first_event_at
-- Where the ledger begins to tell of what happened at a time or later.
SELECT seq FROM events WHERE at >= ? ORDER BY seq LIMIT 1;

-- name: events_of_run_since
-- One run's events from a cursor on.
SELECT * FROM events WHERE run_id = ? AND seq > ? ORDER BY rev LIMIT ?;

-- name: newest_pause_fact
-- When a run last paused or went on, and which of the two.
SELECT kind, at FROM events WHERE run_id = ? AND kind IN ('paused', 'continued') ORDER BY rev DESC LIMIT 1;

-- name: events_of_run
-- All events of one run, in order.
SELECT * FROM events WHERE run_id = ? ORDER BY rev;

-- name: count_live
-- How many live runs stand in each state.
SELECT state, count(*) FROM runs WHERE state <> 'TERM' GROUP BY state;

-- name: count_all
-- How many runs there are.
SELECT count(*) FROM runs;

-- name: quarantined
-- What was set aside, oldest first.
SELECT run_id, why, at, slots, owner, state, body FROM quarantine ORDER BY rowid;

-- name: quarantined_dispatches
-- What a run that was set aside was granted, newest first.
SELECT data FROM quarantined_events WHERE run_id = ? AND kind = 'dispatched' ORDER BY seq DESC LIMIT 1;

-- name: ended_run
-- The row number of a run that ended.
SELECT n FROM runs WHERE run_id = ? AND state = 'TERM';

-- name: quarantine_run
-- Copy a row aside, whole.
INSERT INTO quarantine SELECT runs.*, coalesce(
    (SELECT json_group_array(slot) FROM slots WHERE slots.run_id = runs.run_id), '[]'), :why, :at
FROM runs WHERE n = :n;

-- name: quarantine_events
-- Copy a run's events aside, whole.
INSERT INTO quarantined_events SELECT events.* FROM events
WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_events
-- Take away the events that were copied aside.
DELETE FROM events WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_slots
-- Take away the slots that were noted aside.
DELETE FROM slots WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_pins
-- Take away the pin of a run that was copied aside.
DELETE FROM pins WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_run
-- Take away the row that was copied aside.
DELETE FROM runs WHERE n = ?;

-- name: pins
-- Runs that retention leaves alone.
SELECT run_id FROM pins;

-- name: pin
-- Have retention leave a run alone.
INSERT INTO pins (run_id, who, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: unpin
-- Give a run back to retention.
DELETE FROM pins WHERE run_id = ?;

-- name: prune_mark
-- Write down what will be left of an ended run that nobody pinned: from here on its directory must go.
INSERT INTO pruned (run_id, owner_uid, name, digest, key, outcome, created_at, finished_at, last_seq, size_bytes,
    who, at, removed)
SELECT run_id, owner_uid, name, digest, key, outcome, created_at, finished_at,
    coalesce((SELECT max(seq) FROM events WHERE events.run_id = runs.run_id), 0), :size_bytes, :who, :at, 0
FROM runs WHERE run_id = :run_id AND state = 'TERM' AND NOT EXISTS (SELECT 1 FROM pins WHERE run_id = :run_id);

-- name: prune_events
-- Take away the events of a run that was marked.
DELETE FROM events WHERE run_id = ?;

-- name: prune_run
-- Take away the row of a run that was marked.
DELETE FROM runs WHERE run_id = ?;

-- name: prune_done
-- The directory of a pruned run is gone, too.
UPDATE pruned SET removed = 1 WHERE run_id = ?;

-- name: pruned_left
-- Pruned runs whose directory may still be there.
SELECT run_id FROM pruned WHERE removed = 0;

-- name: pruned_seq
-- The newest event that was pruned: a replay from before it has holes.
SELECT coalesce(max(last_seq), 0) FROM pruned;

-- name: pruned_run
-- What is left of a pruned run.
SELECT * FROM pruned WHERE run_id = ?;

-- name: pruned_with_key
-- The pruned run that an owner submitted under an idempotency key.
SELECT * FROM pruned WHERE owner_uid = ? AND key = ? ORDER BY at DESC LIMIT 1;

-- name: states
-- Where every run stands; the body of live ones says which attempt is theirs.
SELECT run_id, state, CASE WHEN state = 'TERM' THEN NULL ELSE body END FROM runs;

-- name: newest_at
-- The latest time that the end of the ledger speaks of.
SELECT max(at) FROM (SELECT at FROM events ORDER BY seq DESC LIMIT 1000);

-- name: change_epoch
-- Give a restored ledger a name of its own: cursors from before mean nothing here.
INSERT INTO meta (name, value) VALUES ('epoch', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: meta
-- One thing that the registry knows of itself.
SELECT value FROM meta WHERE name = ?;

-- name: set_meta
-- Keep one thing that the registry knows of itself.
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: drop_meta
-- Forget one thing that the registry knew of itself.
DELETE FROM meta WHERE name = ?;

-- name: known_ids
-- The id of every run that there is or was.
SELECT run_id FROM runs UNION ALL SELECT run_id FROM pruned UNION ALL SELECT run_id FROM quarantine;

-- name: last_recorded_by
-- Live runs whose last event was recorded by `who`.
SELECT runs.run_id FROM runs JOIN events ON events.run_id = runs.run_id AND events.rev = runs.rev
WHERE runs.state <> 'TERM' AND events.who = ?;
