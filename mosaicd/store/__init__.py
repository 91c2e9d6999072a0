"""The registry: an SQLite database with one writer and separate readers.  All SQL of mosaicd is here."""
