UPDATE instances
   SET process = ?, version = ?, input_hash = ?, annotations = NULL,
       events_from = (SELECT coalesce(max(position), 0) FROM events)
 WHERE key = ?
