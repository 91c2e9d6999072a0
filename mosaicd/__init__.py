"""mosaicd: the daemon that lets several people share one GPU workstation for long training runs."""

__version__ = "0.1.0"
