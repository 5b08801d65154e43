SELECT annotations FROM instances WHERE key = ?
