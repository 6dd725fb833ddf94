-- Version 2: who watches over a run, who ended it, what a person says of it, and containers that are gone.
--
-- Older code would recover a supervised run as if nobody had watched it: it may not write here any more.

ALTER TABLE run ADD COLUMN capture TEXT NOT NULL DEFAULT 'Attached' CHECK (capture IN ('Supervised', 'Attached'));
-- Why a run is attached.
ALTER TABLE run ADD COLUMN capture_reason TEXT NOT NULL DEFAULT 'it ran before there were supervisors';
-- Tells one engine from another behind the same address; NULL where that was not asked. Such runs are never collected.
ALTER TABLE run ADD COLUMN engine_id TEXT;
-- Who ended an interrupted run; NULL stands for its container.
ALTER TABLE run ADD COLUMN ended_by TEXT CHECK (ended_by IN ('Container', 'Stop', 'Timeout', 'Delete'));
-- When a person said how the run had ended, where nobody else knew.
ALTER TABLE run ADD COLUMN marked_at INTEGER;

-- The only rows of `run` that may be deleted: filled, used and emptied in one transaction.
CREATE TABLE forgetting (
    run_id INTEGER PRIMARY KEY
) STRICT;

-- Containers that their engine does not know any more.
CREATE TABLE absence (
    engine_id    TEXT    NOT NULL,
    container_id TEXT    NOT NULL,
    first_seen   INTEGER NOT NULL,
    PRIMARY KEY (engine_id, container_id)
) STRICT, WITHOUT ROWID;

-- Garbage collection asks by container.
CREATE INDEX run_container ON run (engine_id, container_id);

DROP TRIGGER run_is_never_forgotten;
CREATE TRIGGER run_is_never_forgotten BEFORE DELETE ON run
WHEN NOT (OLD.state = 'Claimed' AND OLD.attempt = 1)
    AND (OLD.owner_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM forgetting WHERE run_id = OLD.id))
BEGIN SELECT RAISE(ABORT, 'a run that may have started is deleted only where that was asked for'); END;

DROP TRIGGER run_moves_along_its_arrows;
CREATE TRIGGER run_moves_along_its_arrows BEFORE UPDATE ON run
WHEN (OLD.state, NEW.state) NOT IN (VALUES
        ('Claimed', 'Claimed'), ('Claimed', 'Starting'), ('Claimed', 'FailedToStart'),
        ('Starting', 'Starting'), ('Starting', 'Running'),
        ('Starting', 'Interrupted'), ('Starting', 'FailedToStart'), ('Starting', 'Unknown'),
        ('Running', 'Running'), ('Running', 'Finished'),
        ('Running', 'Interrupted'), ('Running', 'FailedToStart'), ('Running', 'Unknown'),
        ('FailedToStart', 'Claimed'))
    -- Behind a gate that shows that nothing was started.
    AND NOT (OLD.state = 'Starting' AND NEW.state = 'Claimed' AND OLD.capture = 'Supervised')
    -- By a person, once.
    AND NOT (OLD.state IN ('Interrupted', 'Unknown') AND NEW.state = 'Finished'
             AND OLD.marked_at IS NULL AND NEW.marked_at IS NOT NULL)
BEGIN SELECT RAISE(ABORT, 'a run moves only along its arrows, and one that is over never moves'); END;

DROP TRIGGER run_exec_is_fixed;
CREATE TRIGGER run_exec_is_fixed BEFORE UPDATE ON run
WHEN OLD.exec_id IS NOT NULL AND NEW.exec_id IS NOT OLD.exec_id AND OLD.state <> 'FailedToStart'
    AND NOT (OLD.state = 'Starting' AND NEW.state = 'Claimed' AND OLD.capture = 'Supervised')
BEGIN SELECT RAISE(ABORT, 'the exec of a run never changes'); END;

CREATE TRIGGER run_capture_is_fixed BEFORE UPDATE ON run
WHEN NEW.capture <> OLD.capture AND OLD.state NOT IN ('FailedToStart') AND NEW.state NOT IN ('FailedToStart')
BEGIN SELECT RAISE(ABORT, 'who watches over a run never changes'); END;

-- A failed try comes back as it was when the claim that followed it is given back.
ALTER TABLE failed_try ADD COLUMN capture TEXT NOT NULL DEFAULT 'Attached';
ALTER TABLE failed_try ADD COLUMN capture_reason TEXT NOT NULL DEFAULT 'it ran before there were supervisors';

UPDATE store SET min_writer = 2;
PRAGMA user_version = 2;
