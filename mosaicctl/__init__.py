"""mosaicctl: the thin client of mosaicd.  Standard library only; each verb is a module of its name."""

__version__ = "0.1.0"
