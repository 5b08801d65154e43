-- What a node has code for, as JSON pairs of name and version, and its figures at the last renewal of its lease.
ALTER TABLE nodes ADD COLUMN processes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE nodes ADD COLUMN figures TEXT NOT NULL DEFAULT '{}';
