"""What mosaicd costs, beside what the same work costs without it: `make bench`.

| module | measures |
|---|---|
| latency | submit -> first instruction, exit -> the slot's next run |
| throughput | runs of `true` a second |
| drain | output through the pipes to the logs, telemetry lines |
| footprint | the daemon's memory and idle CPU, memory of a live run |
| listing | `mosaicctl list` with thousands of past runs |

`rows` says what one figure is, `table` shows it, `harness` runs a private daemon, `plain` does the same work
without one, `machine` says where it was measured.  Ours and plain are measured in turns, so that what else
the machine does falls on both: on a busy machine trust the ratios.
"""
