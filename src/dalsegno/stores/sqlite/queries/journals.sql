SELECT journal.instance, journal.seq, journal.at, journal.entry
  FROM journal JOIN instances ON instances.key = journal.instance
 WHERE journal.instance IN (SELECT value FROM json_each(?)) AND journal.seq >= instances.base_seq
 ORDER BY journal.instance, journal.seq
