"""Programs whose process trees are hard to end."""

#: Ignores TERM, as do a child in its own session and a double-forked grandchild.
STUBBORN = """
trap '' TERM
setsid sh -c 'trap "" TERM; while :; do sleep 0.2; done' &
(setsid sh -c 'trap "" TERM; sleep 0.1; while :; do sleep 0.2; done' & )
echo ready
while :; do sleep 0.2; done
"""

#: Two descendants without the marker, in their own sessions; the parent of the second has ended.
DISGUISED = """
trap '' TERM
env -i setsid /bin/sh -c 'trap "" TERM; while :; do /bin/sleep 0.2; done' &
(env -i setsid /bin/sh -c 'trap "" TERM; while :; do /bin/sleep 0.2; done' & )
echo ready
while :; do sleep 0.2; done
"""

#: Only the first descendant of DISGUISED: its parent is alive.
DISGUISED_CHILD = """
trap '' TERM
env -i setsid /bin/sh -c 'trap "" TERM; while :; do /bin/sleep 0.2; done' &
echo ready
while :; do sleep 0.2; done
"""

#: Children that fork a new process whenever one of theirs ends.
REPAIRING = """
import os, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def pair(depth):
    while True:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            while True:
                grand = os.fork()
                if grand == 0:
                    signal.pause()
                os.waitpid(grand, 0)
        os.waitpid(pid, 0)
for _ in range(3):
    if os.fork() == 0:
        pair(0)
print("ready", flush=True)
signal.pause()
"""

#: Two hundred processes that fork all the time, each in its own session.
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
leader = os.getpid()
lives = time.monotonic() + 60
print("ready", flush=True)
made, room = 0, len(os.listdir("/proc")) + 200
while time.monotonic() < lives:
    if made < 3:
        made += 1
        if os.fork() == 0:
            os.setsid()
            if made > 1 or os.getpid() % 2:
                made = 0 if len(os.listdir("/proc")) < room else 3
    else:
        time.sleep(0.01)
"""

#: A process that changes its pid all the time: it forks, the parent ends, the child continues.
COMET = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
lives = time.monotonic() + 60
while time.monotonic() < lives:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
