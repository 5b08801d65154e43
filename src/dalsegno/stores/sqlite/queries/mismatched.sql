SELECT key FROM instances WHERE status = 'parked' AND waiting_for = 'the code that its journal was written with'
