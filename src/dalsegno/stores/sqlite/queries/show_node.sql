UPDATE nodes SET processes = ?, figures = ? WHERE epoch = ?
