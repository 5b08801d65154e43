-- One look into the index for each key that has work, and one for each place that a key has left: what a key may not
-- begin is never read. Nobody else claims meanwhile: the queue's row is held.
WITH RECURSIVE keys (key) AS (
    SELECT min(key) FROM dalsegno.work WHERE namespace = $1 AND queue = $2
    UNION ALL
    SELECT (SELECT min(work.key) FROM dalsegno.work WHERE namespace = $1 AND queue = $2 AND work.key > keys.key)
      FROM keys WHERE keys.key IS NOT NULL
),
room AS (
    SELECT keys.key, $5 - (SELECT count(*) FROM dalsegno.work
                            WHERE namespace = $1 AND queue = $2 AND work.key = keys.key AND state = 'claimed') AS places
      FROM keys WHERE keys.key IS NOT NULL
)
SELECT own.id
  FROM room CROSS JOIN LATERAL (
       SELECT id, priority, turn FROM dalsegno.work
        WHERE namespace = $1 AND queue = $2 AND work.key = room.key AND state = 'ready'
          AND ($4::text[] IS NULL OR step = ANY($4::text[]))
        ORDER BY priority DESC, turn, id LIMIT greatest(0, least($3, room.places))) AS own
 ORDER BY own.priority DESC, own.turn, own.id LIMIT $3
