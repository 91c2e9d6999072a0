"""The registry: SQLite, one writer, readers apart.  Nothing else of mosaicd knows SQL."""
