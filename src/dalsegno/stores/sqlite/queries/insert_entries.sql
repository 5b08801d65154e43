INSERT INTO journal (instance, seq, at, kind, entry)
SELECT * FROM (VALUES (?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL
