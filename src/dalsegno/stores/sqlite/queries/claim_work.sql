UPDATE work
   SET state = 'claimed', claims = claims + 1, token = lower(hex(randomblob(12))), worker = ?2, began_at = ?3,
       lease_until = min(?4, coalesce(?3 + CAST(timeout * 1000000 AS INTEGER) + ?5, ?4)),
       late_at = ?3 + CAST(timeout * 1000000 AS INTEGER) + ?5
 WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'ready'
