#!/usr/bin/env python3
"""Run a command in a virtual machine that has all controllers of control groups of version 2.

    machine.py [--memory MIB] [--limit SECONDS] COMMAND...

The machine runs Debian's current kernel under qemu's software emulation, with the files of this machine: `/`
is shared read-only below a layer in memory, so all that the command writes is lost at the end.

The command runs as root in this checkout, directly below PID 1 (no systemd), in the root control group. Its
output is printed, and its exit status is returned. Two exit statuses are of this program: 77 (something is
missing; the error names it) and 124 (the limit was reached).

Kernel and busybox are fetched once with `apt-get download` into .make/vm and never installed. Note: root is
not needed, only read access to the interpreter and the checkout.
"""

import argparse
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STORE = ROOT / ".make/vm"
HERE = Path(__file__).parent
UNSUPPORTED, LATE = 77, 124
QEMU = "qemu-system-x86_64"
KERNEL = "linux-image-amd64"
MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay", "fuse")
APPLETS = ("sh", "mount", "mkdir", "insmod", "cat", "poweroff", "switch_root")
FOLDERS = ("bin", "modules", "proc", "sys", "dev", "lower", "layers", "new")


def missing(what: str) -> SystemExit:
    """Print what is missing; return the exit to raise."""
    print(f"machine: {what}", file=sys.stderr)
    return SystemExit(UNSUPPORTED)


def output_of(*argv: str, cwd: Path | None = None) -> str:
    """Return the output of a program; a program that fails is reported as missing."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise missing(f"{argv[0]} is needed, but not installed") from None
    if done.returncode != 0:
        error = (done.stderr or done.stdout).strip()[-500:]
        raise missing(f"{' '.join(argv)} failed; run `apt-get update` and try again: {error}")
    return done.stdout


def fetched(package: str) -> Path:
    """Return the directory of an unpacked Debian package; download it if it is missing."""
    place = STORE / package
    if place.is_dir():
        return place
    STORE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORE) as folder:
        os.chmod(folder, 0o755)
        print(f"machine: fetching {package}", file=sys.stderr)
        output_of("apt-get", "download", package, cwd=Path(folder))
        [archive] = Path(folder).glob("*.deb")
        output_of("dpkg", "-x", str(archive), f"{folder}/unpacked")
        os.rename(f"{folder}/unpacked", place)
    return place


def kernel() -> Path:
    """Return the directory of the unpacked package of the current kernel."""
    found = re.search(r"Depends: (linux-image-\S+)", output_of("apt-cache", "depends", KERNEL))
    if found is None:
        raise missing(f"apt has no package {KERNEL}")
    return fetched(found[1])


def modules(unpacked: Path) -> dict[str, bytes]:
    """Return file name -> content of the kernel modules that the machine needs; dependencies come first."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in unpacked.rglob("*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or f"{name}.ko" in found:
            return  # built in, or already added
        if path.suffix not in (".ko", ".xz"):
            raise missing(f"{path.name}: a module must end in .ko or .ko.xz")
        content = path.read_bytes() if path.suffix == ".ko" else lzma.decompress(path.read_bytes())
        needs = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in filter(None, (needs[1] if needs else b"").decode().split(",")):
            add(other.replace("-", "_"))
        found[f"{name}.ko"] = content

    for name in MODULES:
        add(name)
    return found


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """Return a cpio archive (newc) of path -> mode and content."""
    written = b""
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        written += head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
    return written


def initial(unpacked: Path) -> bytes:
    """Return the initial file system: init.sh, busybox and the modules."""
    busybox = next(fetched("busybox-static").rglob("bin/busybox"), None)
    if busybox is None:
        raise missing("the package busybox-static has no bin/busybox")
    loaded = modules(unpacked)
    files = dict.fromkeys(FOLDERS, (0o040755, b""))
    files["init"] = (0o100755, (HERE / "init.sh").read_bytes())
    files["bin/busybox"] = (0o100755, busybox.read_bytes())
    files |= {f"bin/{name}": (0o120777, b"busybox") for name in APPLETS}
    files |= {f"modules/{name}": (0o100644, content) for name, content in loaded.items()}
    files["modules/order"] = (0o100644, "\n".join(loaded).encode())
    return archive(files)


def shared(path: Path, name: str, options: str) -> list[str]:
    """Return the arguments of qemu that share a directory with the machine."""
    return [
        "-fsdev", f"local,id={name},path={path},security_model=none,{options}",
        "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}",
    ]  # fmt: skip


def run(command: list[str], memory_mib: int, limit_s: float) -> int:
    """Boot, run the command, and return its exit status."""
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise missing(f"{QEMU} is needed (Debian: apt-get install --no-install-recommends qemu-system-x86)")
    unpacked = kernel()
    [image] = unpacked.glob("boot/vmlinuz-*")
    with tempfile.TemporaryDirectory(prefix="mosaic-vm-") as folder:
        place = Path(folder)
        (place / "initrd").write_bytes(initial(unpacked))
        task = place / "task"
        task.mkdir()
        (task / "command").write_bytes(b"\0".join(os.fsencode(word) for word in command) + b"\0")
        (task / "directory").write_bytes(os.fsencode(ROOT))
        (task / "boot").write_bytes((HERE / "boot.sh").read_bytes())
        argv = [
            # The clock counts instructions, so that no test times out because the host is busy.
            qemu, "-accel", "tcg", "-icount", "shift=1", "-cpu", "max", "-smp", "1", "-m", str(memory_mib),
            "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot",
            "-serial", "stdio", "-device", "virtio-rng-pci",
            "-kernel", str(image), "-initrd", str(place / "initrd"),
            "-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off",
            *shared(Path("/"), "host", "readonly=on,multidevs=remap"), *shared(task, "task", "readonly=off"),
        ]  # fmt: skip
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=limit_s, check=True)
        except subprocess.TimeoutExpired:
            print(f"machine: the command did not end within {limit_s:g} s (--limit)", file=sys.stderr)
            return LATE
        except subprocess.CalledProcessError as error:
            raise missing(f"qemu ended with {error.returncode}") from None
        try:
            return int((task / "status").read_text())
        except (OSError, ValueError):
            raise missing("the machine ended before the command did") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    parser.add_argument("--limit", type=float, default=2400.0, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("COMMAND is missing")
    return run(command, options.memory, options.limit)


if __name__ == "__main__":
    sys.exit(main())
