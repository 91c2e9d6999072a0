"""Print a 200 KB line, 40,000 carriage returns on stderr, bare NaN, invalid UTF-8 and an unfinished line."""

import json
import sys

out, err = sys.stdout.buffer, sys.stderr.buffer
big = {"type": "step", "step_index": 1, "observation_json": "x" * 200_000, "reward": 1.0}
out.write(json.dumps(big).encode() + b"\n")
for number in range(40_000):
    err.write(b"\rprogress %d" % number)
out.write(b'{"type": "episode", "episode_index": 0, "total_reward": NaN, "steps": 3}\n')
out.write(b'{"type": "step", "step_index": 2, "policy_label": "\xff\xfe", "reward": -Infinity}\n')
out.write(b'\xff\xfe not json { at all\n[PROGRESS] 10%\n{"unfinished": ')
