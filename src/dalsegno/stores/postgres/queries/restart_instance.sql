UPDATE dalsegno.instances
   SET process = $1, version = $2, input_hash = $3, annotations = NULL,
       events_from = coalesce((SELECT max(position) FROM dalsegno.events WHERE namespace = instances.namespace), 0)
 WHERE key = $4
