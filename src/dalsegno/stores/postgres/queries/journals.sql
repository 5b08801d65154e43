SELECT journal.instance, journal.seq, journal.at, journal.entry
  FROM dalsegno.journal JOIN dalsegno.instances ON instances.key = journal.instance
 WHERE journal.instance = ANY($1::bigint[]) AND journal.seq >= instances.base_seq
 ORDER BY journal.instance, journal.seq
