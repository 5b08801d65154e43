SELECT instance, operation, instance_id, match
  FROM waits
 WHERE namespace = ?1 AND event_type = ?2 AND (key = ?3 OR key IS NULL) AND matched IS NULL
