INSERT INTO journal (instance, seq, at, kind, entry)
VALUES (?, ?, ?, ?, ?)
