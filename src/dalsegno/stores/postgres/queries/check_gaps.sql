SELECT 'instance ' || coalesce(max(instances.id), journal.instance::text) || ': its journal has gaps, ' || count(*)
       || ' entries from ' || min(seq) || ' to ' || max(seq)
  FROM dalsegno.journal LEFT JOIN dalsegno.instances ON instances.key = journal.instance
 GROUP BY journal.instance HAVING min(seq) <> 0 OR max(seq) + 1 <> count(*)
