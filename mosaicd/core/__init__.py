"""The rules of mosaicd as pure code: no I/O, no clock, no asyncio.  Time comes in as an argument."""
