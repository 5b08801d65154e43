SELECT DISTINCT instances.owner
  FROM dalsegno.messages
       JOIN dalsegno.instances ON instances.namespace = messages.namespace AND instances.id = messages.instance
 WHERE done_at IS NULL AND NOT EXISTS (SELECT 1 FROM dalsegno.fences WHERE epoch = owner)
