SELECT position, id, payload
  FROM events
 WHERE namespace = ?1 AND event_type = ?2 AND key = ?3 AND position > ?4
   AND (recipient = ?5 OR (recipient IS NULL AND position > (SELECT events_from FROM instances WHERE key = ?6)))
 ORDER BY position
