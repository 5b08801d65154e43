SELECT 'an attempt ' || attempt || ' of step ' || operation || ' on queue ' || queue || ' of instance '
       || work.instance_id || ', which ' || CASE WHEN instances.key IS NULL THEN 'doesn''t exist' ELSE 'is ' || status END
  FROM dalsegno.work LEFT JOIN dalsegno.instances ON instances.key = work.instance
 WHERE instances.key IS NULL OR status IN ('completed', 'failed', 'cancelled', 'terminated')
