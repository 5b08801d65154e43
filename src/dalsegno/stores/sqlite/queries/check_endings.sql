WITH last (key, seq) AS (
    SELECT instances.key, max(journal.seq)
      FROM instances JOIN journal ON journal.instance = instances.key
     WHERE journal.kind IN ('started', 'continued', 'reopened', 'ended')
     GROUP BY instances.key
)
SELECT 'instance ' || id || ' is ' || status || ', but its journal says ' || journal.kind
  FROM instances JOIN last ON last.key = instances.key
       JOIN journal ON journal.instance = last.key AND journal.seq = last.seq
 WHERE (instances.status IN ('completed', 'failed', 'cancelled', 'terminated')) <> (journal.kind = 'ended')
