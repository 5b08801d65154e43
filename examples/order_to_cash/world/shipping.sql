CREATE TABLE IF NOT EXISTS shipments (
  id       INTEGER PRIMARY KEY,
  order_id TEXT NOT NULL,
  country  TEXT NOT NULL,
  status   TEXT NOT NULL CHECK (status IN ('booked', 'delivered', 'cancelled', 'returned'))
);
CREATE INDEX IF NOT EXISTS shipments_by_order ON shipments (order_id);

CREATE TABLE IF NOT EXISTS recalled_orders (order_id TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS callbacks (
  order_id TEXT NOT NULL,
  status   INTEGER NOT NULL -- what the receiver answered; 0: nothing
);
