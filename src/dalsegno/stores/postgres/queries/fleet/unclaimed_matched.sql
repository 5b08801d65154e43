SELECT DISTINCT instances.owner
  FROM dalsegno.waits JOIN dalsegno.instances ON instances.key = waits.instance
 WHERE waits.matched IS NOT NULL AND NOT EXISTS (SELECT 1 FROM dalsegno.fences WHERE epoch = owner)
