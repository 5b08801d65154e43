SELECT 'a wait ' || operation || ' of instance ' || instance_id || ', which '
       || CASE WHEN instances.key IS NULL THEN 'doesn''t exist' ELSE 'is ' || status END
  FROM dalsegno.waits LEFT JOIN dalsegno.instances ON instances.key = waits.instance
 WHERE instances.key IS NULL OR status IN ('completed', 'failed', 'cancelled', 'terminated')
