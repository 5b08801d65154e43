SELECT batch FROM dalsegno.fences WHERE epoch = $1 FOR KEY SHARE
