"""Print 20,000 step lines in one burst."""

import sys

LINE = '{"type":"step","run_id":"r","episode_index":%d,"step_index":%d,"reward":0.5,"ts_unix_ns":1}\n'
sys.stdout.write("".join(LINE % (number // 100, number) for number in range(20_000)))
