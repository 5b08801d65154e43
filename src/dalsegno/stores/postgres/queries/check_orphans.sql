SELECT DISTINCT 'journal entries of instance number ' || instance || ', which doesn''t exist'
  FROM dalsegno.journal WHERE NOT EXISTS (SELECT 1 FROM dalsegno.instances WHERE key = journal.instance)
UNION ALL
SELECT 'task ' || id || ' of instance ' || instance || ', which doesn''t exist'
  FROM dalsegno.tasks WHERE NOT EXISTS (SELECT 1 FROM dalsegno.instances WHERE instances.namespace = tasks.namespace
                                                                           AND instances.id = tasks.instance)
