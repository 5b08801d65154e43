SELECT 'instance ' || coalesce(instances.id, journal.instance::text) || ': entry ' || seq || ' can''t be read as ' || kind
  FROM dalsegno.journal LEFT JOIN dalsegno.instances ON instances.key = journal.instance
 WHERE position(convert_to('"kind":"' || kind || '"', 'UTF8') IN entry) = 0
