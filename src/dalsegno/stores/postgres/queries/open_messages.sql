SELECT position, messages.namespace, instance, verb, body, by, at, reply, done_at
  FROM dalsegno.messages
       LEFT JOIN dalsegno.instances ON instances.namespace = messages.namespace AND instances.id = messages.instance
 WHERE done_at IS NULL AND (position > $1 OR position <> ALL($2::bigint[]))
   AND (instances.key IS NULL OR instances.owner = $3)
 ORDER BY position LIMIT 1000
