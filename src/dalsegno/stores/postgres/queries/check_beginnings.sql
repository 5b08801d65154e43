SELECT 'instance ' || id || ': its run doesn''t begin at entry ' || base_seq
  FROM dalsegno.instances LEFT JOIN dalsegno.journal ON journal.instance = instances.key AND journal.seq = base_seq
 WHERE journal.kind IS DISTINCT FROM 'started'
