-- One look into the index for each key that has work.
WITH RECURSIVE keys (key) AS (
    SELECT min(key) FROM work WHERE namespace = ?1 AND queue = ?2
    UNION ALL
    SELECT (SELECT min(key) FROM work WHERE namespace = ?1 AND queue = ?2 AND work.key > keys.key)
      FROM keys WHERE key IS NOT NULL
)
SELECT key, ?3 - (SELECT count(*) FROM work
                   WHERE namespace = ?1 AND queue = ?2 AND work.key = keys.key AND state = 'claimed')
  FROM keys WHERE key IS NOT NULL
