SELECT 'instance ' || id || ': its run doesn''t begin at entry ' || base_seq
  FROM instances LEFT JOIN journal ON journal.instance = instances.key AND journal.seq = instances.base_seq
 WHERE journal.kind IS NOT 'started'
