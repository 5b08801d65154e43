CREATE TABLE IF NOT EXISTS items (
  stock_code TEXT PRIMARY KEY,
  on_hand    INTEGER NOT NULL CHECK (on_hand >= 0)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS holds (
  id       INTEGER PRIMARY KEY,
  order_id TEXT NOT NULL,
  status   TEXT NOT NULL CHECK (status IN ('held', 'released', 'issued'))
);
CREATE INDEX IF NOT EXISTS holds_by_order ON holds (order_id);

CREATE TABLE IF NOT EXISTS hold_lines (
  hold_id    INTEGER NOT NULL REFERENCES holds (id),
  stock_code TEXT NOT NULL,
  quantity   INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS hold_lines_by_hold ON hold_lines (hold_id);

CREATE TABLE IF NOT EXISTS cancelled_orders (order_id TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS invoices (
  id       INTEGER PRIMARY KEY,
  order_id TEXT NOT NULL,
  amount   INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS credit_notes (
  id        INTEGER PRIMARY KEY,
  order_id  TEXT NOT NULL,
  reference TEXT NOT NULL,
  amount    INTEGER NOT NULL
);
