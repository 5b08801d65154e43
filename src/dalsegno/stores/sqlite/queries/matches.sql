SELECT waits.instance, waits.operation, events.position, events.id, events.payload
  FROM waits JOIN events ON events.position = waits.matched
 WHERE waits.matched IS NOT NULL
