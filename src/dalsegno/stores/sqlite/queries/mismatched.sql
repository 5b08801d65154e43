SELECT key FROM instances WHERE status = 'parked' AND error LIKE 'expected %'
