SELECT position, id, payload
  FROM dalsegno.events
 WHERE namespace = $1 AND event_type = $2 AND position > $3
   AND (recipient = $4
        OR (recipient IS NULL AND position > (SELECT events_from FROM dalsegno.instances WHERE key = $5)))
 ORDER BY position LIMIT $6
