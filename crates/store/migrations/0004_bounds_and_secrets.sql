-- Version 4: how many bytes of each output are kept, and a key for the hashes of secrets.
--
-- Older code may go on writing: a run of its has no limit here, as it had none there.

-- NULL of a run from before there was a default.
ALTER TABLE run_spec ADD COLUMN log_limit INTEGER CHECK (log_limit >= 0);
-- 32 random bytes, made when the store is opened next.
ALTER TABLE store ADD COLUMN secret_key BLOB;

-- Hashes of secrets had no key, so that a short secret could be found from them. Nothing was ever compared with them.
PRAGMA secure_delete = ON;
UPDATE run_spec
SET effective = json_object(
    'args', (SELECT json_group_array(json(json_remove(value, '$.secret_sha256')) ORDER BY key)
             FROM json_each(run_spec.effective, '$.args')),
    'env', (SELECT json_group_array(
                       json_array(json_extract(value, '$[0]'),
                                  json(json_remove(json_extract(value, '$[1]'), '$.secret_sha256')))
                       ORDER BY key)
            FROM json_each(run_spec.effective, '$.env')),
    'stdin', json(json_remove(json_extract(run_spec.effective, '$.stdin'), '$.secretSha256')))
WHERE effective LIKE '%"secret_sha256"%' OR effective LIKE '%"secretSha256"%';
PRAGMA secure_delete = OFF;

PRAGMA user_version = 4;
