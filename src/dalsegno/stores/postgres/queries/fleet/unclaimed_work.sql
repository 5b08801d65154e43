SELECT DISTINCT instances.owner
  FROM dalsegno.work JOIN dalsegno.instances ON instances.key = work.instance
 WHERE work.state = 'done' AND NOT EXISTS (SELECT 1 FROM dalsegno.fences WHERE epoch = owner)
