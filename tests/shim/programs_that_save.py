"""Programs that save something when they are stopped, and that need other processes for it."""

#: Asks two children for their parts at TERM, and writes them to the file that it is given; prints `ready` and
#: `saved`.  The children end with TERM.  A second TERM is written down as `TERM again`.
SAVER = """
import os, signal, sys, time
terms = []
signal.signal(signal.SIGTERM, lambda *_: terms.append(1))
def part():
    asked, ask = os.pipe()
    answer, answered = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(ask)
        while os.read(asked, 1):
            os.write(answered, b"part ")
        os._exit(0)
    os.close(asked), os.close(answered)
    return ask, answer
parts = [part() for _ in range(2)]
print("ready", flush=True)
while not terms:
    time.sleep(0.01)
time.sleep(0.1)
content = b""
for ask, answer in parts:
    os.write(ask, b"?")
    content += os.read(answer, 5)
if len(terms) > 1:
    content += b"TERM again"
with open(sys.argv[1], "wb") as file:
    file.write(content)
print("saved", flush=True)
"""
