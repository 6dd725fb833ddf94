-- Version 3: whether processes that a program left behind still held its output open when it ended.
--
-- Older code may go on writing: what it records has nobody left behind.

ALTER TABLE log ADD COLUMN held_open INTEGER NOT NULL DEFAULT 0 CHECK (held_open IN (0, 1));

PRAGMA user_version = 3;
