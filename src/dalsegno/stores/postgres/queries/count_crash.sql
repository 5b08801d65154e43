UPDATE dalsegno.instances
   SET crashes = CASE WHEN crashed_seq <> last.seq THEN 1
                      WHEN crashes < $2::bigint OR on_trial > 0 THEN crashes + 1
                      ELSE crashes END,
       crashed_seq = last.seq,
       on_trial = CASE on_trial WHEN 1 THEN -1 ELSE 0 END
  FROM (SELECT i.key, (SELECT max(seq) FROM dalsegno.journal WHERE instance = i.key) AS seq
          FROM dalsegno.instances AS i
         WHERE i.owner = ANY($1::bigint[]) AND i.status = 'running' AND i.begun) AS last
 WHERE instances.key = last.key
