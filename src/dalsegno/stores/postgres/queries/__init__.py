"""One SQL statement a file; a file's name is what it does. `dalsegno` stands for the store's schema."""
