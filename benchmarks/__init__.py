"""Benchmarks: the cost of mosaicd beside the same work without it (`make bench`).

| module | measures |
|---|---|
| latency | submit -> first instruction, exit -> the slot's next run |
| throughput | runs of `true` a second |
| drain | output through the pipes to the logs, telemetry lines |
| footprint | the daemon's memory and idle CPU, memory of a live run |
| listing | `mosaicctl list` with thousands of past runs |

`rows` defines a figure, `table` prints it, `harness` runs a private daemon, `plain` does the same work
without a daemon, `machine` describes the machine.  mosaicd and the plain way are measured alternately, so
that other load affects both: on a busy machine, trust the ratios.
"""
