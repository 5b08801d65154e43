SELECT position, id, payload
  FROM events
 WHERE namespace = ?1 AND event_type = ?2 AND position > ?3
   AND (recipient = ?4 OR (recipient IS NULL AND position > (SELECT events_from FROM instances WHERE key = ?5)))
 ORDER BY position
