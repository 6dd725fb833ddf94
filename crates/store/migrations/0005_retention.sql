-- Version 5: where the object of a run is, so that runs of objects that are gone need not be kept for ever.
--
-- Older code may go on writing: of its runs that is not known, and they are kept.

ALTER TABLE run ADD COLUMN objects TEXT;

-- Runs that are made once for each object, and that nobody can ask for once the object is gone.
CREATE INDEX run_of_object ON run (id) WHERE token LIKE 'object=%' AND owner_id IS NULL;

PRAGMA user_version = 5;
