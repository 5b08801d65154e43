SELECT 'instance ' || coalesce(instances.id, journal.instance) || ': its journal has gaps, ' || count(*)
       || ' entries from ' || min(seq) || ' to ' || max(seq)
  FROM journal LEFT JOIN instances ON instances.key = journal.instance
 GROUP BY journal.instance HAVING min(seq) <> 0 OR max(seq) + 1 <> count(*)
