-- Every statement of the registry: its name, a sentence, the SQL.  statements.py loads it once.

-- name: epoch
-- The epoch of this ledger; cursors of another epoch are not valid in it.
SELECT value FROM meta WHERE name = 'epoch';

-- name: set_epoch
-- Set the epoch of a new ledger.
INSERT INTO meta (name, value) VALUES ('epoch', ?);

-- name: insert_run
-- Insert a new run.
INSERT INTO runs (run_id, name, owner_uid, owner, state, released, want, outcome, cause_kind, rev, digest, key,
    priority, created_at, finished_at, body, progress)
VALUES (:run_id, :name, :owner_uid, :owner, :state, :released, :want, :outcome, :cause_kind, :rev, :digest, :key,
    :priority, :created_at, :finished_at, :body, :progress);

-- name: update_run
-- Update a row after events, if it still has the revision `was`.
UPDATE runs SET name = :name, state = :state, released = :released, want = :want, outcome = :outcome,
    cause_kind = :cause_kind, rev = :rev, priority = :priority, finished_at = :finished_at, body = :body,
    progress = coalesce(:progress, progress)
WHERE run_id = :run_id AND rev = :was;

-- name: update_progress
-- Update the last values of a live run; a run that has ended keeps its last values.
UPDATE runs SET progress = ? WHERE run_id = ? AND state <> 'TERM';

-- name: insert_event
-- Insert an event; its rowid is the seq.
INSERT INTO events (run_id, attempt, rev, kind, at, who, data, state, want, outcome)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: give_back_slots
-- Free every slot of a run.
DELETE FROM slots WHERE run_id = ?;

-- name: take_slot
-- Take a slot; fails if another run holds it.
INSERT INTO slots (slot, run_id) VALUES (?, ?);

-- name: holder
-- The run that holds a slot.
SELECT run_id FROM slots WHERE slot = ?;

-- name: slots_of
-- The slots of a run.
SELECT slot FROM slots WHERE run_id = ? ORDER BY slot;

-- name: last_seq
-- The highest seq that was ever used.
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
-- The newest live run of an owner with the same canonical config, without runs that are being stopped.
SELECT * FROM runs WHERE owner_uid = ? AND digest = ? AND state <> 'TERM' AND want <> 'stop'
ORDER BY n DESC LIMIT 1;

-- name: runs_with_prefix
-- Runs whose id begins with a prefix, at most 10: enough for the examples in an error message.
SELECT run_id, name FROM runs
WHERE run_id >= :prefix AND run_id < :prefix || '~' AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
ORDER BY n DESC LIMIT 10;

-- name: newest_named
-- The newest run with a name.
SELECT * FROM runs WHERE name = :name AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
ORDER BY n DESC LIMIT 1;

-- name: events_since
-- The events after a cursor.
SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?;

-- name: first_event_at
-- The seq of the first event at a time or later.
SELECT seq FROM events WHERE at >= ? ORDER BY seq LIMIT 1;

-- name: events_of_run_since
-- The events of one run after a cursor.
SELECT * FROM events WHERE run_id = ? AND seq > ? ORDER BY rev LIMIT ?;

-- name: newest_pause_fact
-- The kind and time of the newest `paused` or `continued` event of a run.
SELECT kind, at FROM events WHERE run_id = ? AND kind IN ('paused', 'continued') ORDER BY rev DESC LIMIT 1;

-- name: events_of_run
-- All events of one run, in order.
SELECT * FROM events WHERE run_id = ? ORDER BY rev;

-- name: count_live
-- The number of live runs in each state.
SELECT state, count(*) FROM runs WHERE state <> 'TERM' GROUP BY state;

-- name: count_all
-- The number of runs.
SELECT count(*) FROM runs;

-- name: quarantined
-- The quarantined runs, oldest first.
SELECT run_id, why, at, slots, owner, state, body FROM quarantine ORDER BY rowid;

-- name: quarantined_dispatches
-- The data of the newest dispatch of a quarantined run.
SELECT data FROM quarantined_events WHERE run_id = ? AND kind = 'dispatched' ORDER BY seq DESC LIMIT 1;

-- name: ended_run
-- The row number of a run that has ended.
SELECT n FROM runs WHERE run_id = ? AND state = 'TERM';

-- name: quarantine_run
-- Copy a row and its slots into the quarantine.
INSERT INTO quarantine SELECT runs.*, coalesce(
    (SELECT json_group_array(slot) FROM slots WHERE slots.run_id = runs.run_id), '[]'), :why, :at
FROM runs WHERE n = :n;

-- name: quarantine_events
-- Copy the events of a run into the quarantine.
INSERT INTO quarantined_events SELECT events.* FROM events
WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_events
-- Delete the events of a run that was copied into the quarantine.
DELETE FROM events WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_slots
-- Free the slots of a run that was copied into the quarantine.
DELETE FROM slots WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_pins
-- Delete the pin of a run that was copied into the quarantine.
DELETE FROM pins WHERE run_id = (SELECT run_id FROM runs WHERE n = ?);

-- name: quarantine_drop_run
-- Delete the row of a run that was copied into the quarantine.
DELETE FROM runs WHERE n = ?;

-- name: pins
-- The pinned runs, which retention never removes.
SELECT run_id FROM pins;

-- name: pin
-- Pin a run.
INSERT INTO pins (run_id, who, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: unpin
-- Unpin a run.
DELETE FROM pins WHERE run_id = ?;

-- name: prune_mark
-- Record that an ended run without a pin is pruned; its directory must be removed from now on.
INSERT INTO pruned (run_id, owner_uid, name, digest, key, outcome, created_at, finished_at, last_seq, size_bytes,
    who, at, removed)
SELECT run_id, owner_uid, name, digest, key, outcome, created_at, finished_at,
    coalesce((SELECT max(seq) FROM events WHERE events.run_id = runs.run_id), 0), :size_bytes, :who, :at, 0
FROM runs WHERE run_id = :run_id AND state = 'TERM' AND NOT EXISTS (SELECT 1 FROM pins WHERE run_id = :run_id);

-- name: prune_events
-- Delete the events of a run that is pruned.
DELETE FROM events WHERE run_id = ?;

-- name: prune_run
-- Delete the row of a run that is pruned.
DELETE FROM runs WHERE run_id = ?;

-- name: prune_done
-- Record that the directory of a pruned run is removed.
UPDATE pruned SET removed = 1 WHERE run_id = ?;

-- name: pruned_left
-- Pruned runs whose directory may still exist.
SELECT run_id FROM pruned WHERE removed = 0;

-- name: pruned_seq
-- The seq of the newest event that was pruned; a replay from before it has gaps.
SELECT coalesce(max(last_seq), 0) FROM pruned;

-- name: pruned_run
-- The record of a pruned run.
SELECT * FROM pruned WHERE run_id = ?;

-- name: pruned_with_key
-- The pruned run that an owner submitted under an idempotency key.
SELECT * FROM pruned WHERE owner_uid = ? AND key = ? ORDER BY at DESC LIMIT 1;

-- name: states
-- The state of every run, and the body of live runs, which has the attempt.
SELECT run_id, state, CASE WHEN state = 'TERM' THEN NULL ELSE body END FROM runs;

-- name: newest_at
-- The latest time among the newest events.
SELECT max(at) FROM (SELECT at FROM events ORDER BY seq DESC LIMIT 1000);

-- name: change_epoch
-- Set a new epoch; older cursors are not valid any more.
INSERT INTO meta (name, value) VALUES ('epoch', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: meta
-- One value of the registry about itself.
SELECT value FROM meta WHERE name = ?;

-- name: set_meta
-- Set a value of the registry about itself.
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: drop_meta
-- Delete a value of the registry about itself.
DELETE FROM meta WHERE name = ?;

-- name: known_ids
-- The ids of all runs, also of pruned and quarantined ones.
SELECT run_id FROM runs UNION ALL SELECT run_id FROM pruned UNION ALL SELECT run_id FROM quarantine;

-- name: last_recorded_by
-- Live runs whose last event was recorded by `who`.
SELECT runs.run_id FROM runs JOIN events ON events.run_id = runs.run_id AND events.rev = runs.rev
WHERE runs.state <> 'TERM' AND events.who = ?;
