CREATE TABLE IF NOT EXISTS customers (
  id      TEXT PRIMARY KEY,
  country TEXT NOT NULL,
  guest   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS deals (
  order_id TEXT PRIMARY KEY,
  customer TEXT,
  amount   INTEGER,
  status   TEXT NOT NULL CHECK (status IN ('open', 'won', 'lost'))
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS notes (
  order_id TEXT NOT NULL,
  text     TEXT NOT NULL
);
