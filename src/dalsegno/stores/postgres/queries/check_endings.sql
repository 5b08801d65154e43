WITH last (key, seq) AS (
    SELECT instances.key, max(journal.seq)
      FROM dalsegno.instances JOIN dalsegno.journal ON journal.instance = instances.key
     WHERE journal.kind IN ('started', 'continued', 'reopened', 'ended')
     GROUP BY instances.key
)
SELECT 'instance ' || id || ' is ' || status || ', but its journal says ' || journal.kind
  FROM dalsegno.instances JOIN last ON last.key = instances.key
       JOIN dalsegno.journal ON journal.instance = last.key AND journal.seq = last.seq
 WHERE (instances.status IN ('completed', 'failed', 'cancelled', 'terminated')) <> (journal.kind = 'ended')
