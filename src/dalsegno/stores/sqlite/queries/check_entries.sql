SELECT 'instance ' || coalesce(instances.id, journal.instance) || ': entry ' || seq || ' can''t be read as ' || kind
  FROM journal LEFT JOIN instances ON instances.key = journal.instance
 WHERE CASE WHEN json_valid(CAST(entry AS TEXT)) THEN json_extract(CAST(entry AS TEXT), '$.kind') END IS NOT kind
