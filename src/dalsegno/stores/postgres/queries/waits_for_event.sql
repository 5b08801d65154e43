SELECT waits.instance, waits.operation, waits.instance_id, waits.match, instances.owner
  FROM dalsegno.waits LEFT JOIN dalsegno.instances ON instances.key = waits.instance
 WHERE waits.namespace = $1 AND waits.event_type = $2 AND waits.key = $3 AND matched IS NULL
UNION ALL
SELECT waits.instance, waits.operation, waits.instance_id, waits.match, instances.owner
  FROM dalsegno.waits LEFT JOIN dalsegno.instances ON instances.key = waits.instance
 WHERE waits.namespace = $1 AND waits.event_type = $2 AND waits.key IS NULL AND matched IS NULL
