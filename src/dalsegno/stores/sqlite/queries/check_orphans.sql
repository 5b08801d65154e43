SELECT DISTINCT 'journal entries of instance number ' || instance || ', which doesn''t exist'
  FROM journal WHERE instance NOT IN (SELECT key FROM instances)
UNION ALL
SELECT 'task ' || id || ' of instance ' || instance || ', which doesn''t exist'
  FROM tasks WHERE NOT EXISTS (SELECT 1 FROM instances WHERE instances.namespace = tasks.namespace
                                                         AND instances.id = tasks.instance)
