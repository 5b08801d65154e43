SELECT waits.instance, waits.operation, events.position, events.id, events.payload
  FROM dalsegno.waits JOIN dalsegno.events ON events.position = waits.matched
       JOIN dalsegno.instances ON instances.key = waits.instance
 WHERE waits.matched IS NOT NULL AND instances.owner = $1
 ORDER BY events.position, waits.instance
