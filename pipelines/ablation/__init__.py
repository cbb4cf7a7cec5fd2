"""One short training per design choice, and one table that compares them; see README.md here."""
