SELECT batch FROM dalsegno.fences WHERE epoch = $1
