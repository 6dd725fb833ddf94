-- The run store, version 1.
--
-- Times are nanoseconds since the Unix epoch. The triggers repeat what the code never does: a defect, a second
-- implementation or a person with the sqlite3 tool cannot make the store forget a run or let one happen twice.

CREATE TABLE store (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    uuid       TEXT    NOT NULL,
    -- The lowest schema version whose code may write here.
    min_writer INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- One row per daemon. Whether it lives is told by the lock on owners/<uuid>.lock alone; the rest is for people.
CREATE TABLE owner (
    id         INTEGER PRIMARY KEY,
    uuid       TEXT    NOT NULL UNIQUE,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    version    TEXT    NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;

CREATE TABLE run (
    -- AUTOINCREMENT: the number of a released claim is never given to another run.
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    ident          TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    token          TEXT    NOT NULL,
    container_id   TEXT    NOT NULL,
    container_name TEXT    NOT NULL,
    -- The engine's address: for people, never part of the key.
    engine         TEXT    NOT NULL,
    object_uid     TEXT    NOT NULL,
    attempt        INTEGER NOT NULL CHECK (attempt >= 1),
    -- Grows by one whenever somebody acquires the run; the nonce is new each time and names that acquisition.
    epoch          INTEGER NOT NULL CHECK (epoch >= 1),
    nonce          TEXT    NOT NULL,
    -- The daemon that may move it, while it is open, and since when.
    owner_id       INTEGER REFERENCES owner (id),
    acquired_at    INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    claimed_at     INTEGER NOT NULL,
    exec_id        TEXT,
    started_at     INTEGER,
    finished_at    INTEGER,
    exit_code      INTEGER,
    reason         TEXT,
    message        TEXT,
    UNIQUE (ident, name, token),
    CHECK (state IN ('Claimed', 'Starting', 'Running', 'Finished', 'Interrupted', 'FailedToStart', 'Unknown')),
    CHECK ((state IN ('Claimed', 'Starting', 'Running')) = (owner_id IS NOT NULL)),
    CHECK ((state IN ('Claimed', 'Starting', 'Running')) = (finished_at IS NULL)),
    CHECK ((state = 'Claimed') = (exec_id IS NULL)),
    CHECK (state NOT IN ('Running', 'Finished') OR started_at IS NOT NULL),
    CHECK (state NOT IN ('Claimed', 'Starting', 'FailedToStart') OR started_at IS NULL),
    CHECK (state <> 'Finished' OR exit_code IS NOT NULL),
    CHECK (state IN ('Finished', 'Interrupted') OR exit_code IS NULL),
    CHECK ((state = 'FailedToStart') = (reason IS NOT NULL)),
    CHECK ((state IN ('Interrupted', 'FailedToStart', 'Unknown')) = (message IS NOT NULL))
) STRICT;

-- Recovery looks at open runs only, however many are over.
CREATE INDEX run_open ON run (owner_id) WHERE owner_id IS NOT NULL;

-- Apart from `run`, so that a change of state does not write a long program again.
CREATE TABLE run_spec (
    run_id      INTEGER PRIMARY KEY REFERENCES run (id) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    -- JSON, secrets masked.
    program     TEXT NOT NULL,
    effective   TEXT NOT NULL
) STRICT;

-- The last failed try of a run that is being tried again: what it goes back to when the new claim is released.
CREATE TABLE failed_try (
    run_id      INTEGER PRIMARY KEY REFERENCES run (id) ON DELETE CASCADE,
    claimed_at  INTEGER NOT NULL,
    exec_id     TEXT    NOT NULL,
    finished_at INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    message     TEXT    NOT NULL
) STRICT;

-- What an ended run wrote; the bytes themselves are in logs/.
CREATE TABLE log (
    run_id    INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    stream    TEXT    NOT NULL CHECK (stream IN ('stdout', 'stderr')),
    bytes     INTEGER NOT NULL CHECK (bytes >= kept),
    kept      INTEGER NOT NULL CHECK (kept >= 0),
    truncated INTEGER NOT NULL CHECK (truncated IN (0, 1)),
    tail      BLOB    NOT NULL,
    crc32c    INTEGER NOT NULL,
    PRIMARY KEY (run_id, stream)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER run_begins_claimed BEFORE INSERT ON run
WHEN NEW.state <> 'Claimed' OR NEW.attempt <> 1 OR NEW.epoch <> 1
BEGIN SELECT RAISE(ABORT, 'a run begins as a claim'); END;

CREATE TRIGGER run_is_never_forgotten BEFORE DELETE ON run
WHEN OLD.state <> 'Claimed' OR OLD.attempt <> 1
BEGIN SELECT RAISE(ABORT, 'a run that may have started is never deleted'); END;

CREATE TRIGGER run_key_is_fixed BEFORE UPDATE ON run
WHEN NEW.id <> OLD.id OR NEW.ident <> OLD.ident OR NEW.name <> OLD.name OR NEW.token <> OLD.token
BEGIN SELECT RAISE(ABORT, 'the key of a run never changes'); END;

CREATE TRIGGER run_moves_along_its_arrows BEFORE UPDATE ON run
WHEN (OLD.state, NEW.state) NOT IN (VALUES
    ('Claimed', 'Claimed'), ('Claimed', 'Starting'), ('Claimed', 'FailedToStart'),
    ('Starting', 'Starting'), ('Starting', 'Running'),
    ('Starting', 'Interrupted'), ('Starting', 'FailedToStart'), ('Starting', 'Unknown'),
    ('Running', 'Running'), ('Running', 'Finished'),
    ('Running', 'Interrupted'), ('Running', 'FailedToStart'), ('Running', 'Unknown'),
    ('FailedToStart', 'Claimed'))
BEGIN SELECT RAISE(ABORT, 'a run moves only along its arrows, and one that is over never moves'); END;

CREATE TRIGGER run_attempt_counts_claims BEFORE UPDATE ON run
WHEN NEW.attempt <> OLD.attempt + CASE
    WHEN OLD.state = 'FailedToStart' THEN 1
    WHEN OLD.state = 'Claimed' AND NEW.state = 'FailedToStart' THEN -1
    ELSE 0 END
BEGIN SELECT RAISE(ABORT, 'the attempt counts the claims of a run'); END;

CREATE TRIGGER run_epoch_counts_acquisitions BEFORE UPDATE ON run
WHEN NEW.epoch NOT IN (OLD.epoch, OLD.epoch + 1)
    OR (NEW.epoch = OLD.epoch) <> (NEW.nonce = OLD.nonce)
    OR (NEW.epoch = OLD.epoch AND NEW.owner_id IS NOT NULL AND NEW.owner_id IS NOT OLD.owner_id)
    OR (NEW.epoch > OLD.epoch AND NEW.owner_id IS NULL)
BEGIN SELECT RAISE(ABORT, 'a run changes hands only with a new epoch and a new nonce'); END;

CREATE TRIGGER run_exec_is_fixed BEFORE UPDATE ON run
WHEN OLD.exec_id IS NOT NULL AND NEW.exec_id IS NOT OLD.exec_id AND OLD.state <> 'FailedToStart'
BEGIN SELECT RAISE(ABORT, 'the exec of a run never changes'); END;

CREATE TRIGGER run_start_is_fixed BEFORE UPDATE ON run
WHEN OLD.started_at IS NOT NULL AND NEW.started_at IS NOT OLD.started_at AND NEW.state <> 'FailedToStart'
BEGIN SELECT RAISE(ABORT, 'the start of a run never changes'); END;

CREATE TRIGGER log_is_fixed BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log of a run never changes'); END;

CREATE TRIGGER log_is_kept BEFORE DELETE ON log
WHEN (SELECT state FROM run WHERE id = OLD.run_id) NOT IN ('Claimed')
BEGIN SELECT RAISE(ABORT, 'the log of a run is kept with it'); END;

PRAGMA application_id = 0x6f6e636c;
PRAGMA user_version = 1;
