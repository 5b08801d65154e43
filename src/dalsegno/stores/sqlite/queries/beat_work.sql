UPDATE work
   SET lease_until = min(?4, coalesce(late_at, ?4)), details = coalesce(?5, details)
 WHERE id = ?1 AND token = ?2 AND namespace = ?3 AND state = 'claimed'
RETURNING cancelled
