"""Rules for the variables of a run: which the launch decides, and which of the submitter's count.

A run has one number of threads: libraries read different variables, and one that finds none of its own uses
all cores or believes another library.  So if the submitter gives one of `THREAD_COUNTS`, the others follow.
"""

from collections.abc import Mapping

from mosaicd.core.digest import GPU_NAMES, REWRITTEN, SET_BY_LAUNCH
from mosaicd.protocol.faults import Faults, Path

#: Without a limit, each BLAS and OpenMP runtime uses every core; two runs are then three times slower.
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

#: The path of a socket has at most 107 bytes, and Ray needs 68 of them below TMPDIR.
LONGEST_TMPDIR_BYTES = 107 - 68

#: The reason for which a variable may not be chosen; the other names of SET_BY_LAUNCH have `_SET`.
_DECIDED_BY: Mapping[str, str] = {
    "MOSAIC_CPUS": "the granted CPUs decide it; ask for CPUs with `cpus` (-c)",
    "MOSAIC_MEMORY_MB": "the memory limit decides it; set a limit with `memory_mb` (-m)",
    "PWD": "the working directory decides it; choose one with `cwd` (--cwd)",
    **dict.fromkeys(
        GPU_NAMES, "the granted GPU slots decide which GPUs the run sees; ask for slots with `gpus` (-g)"
    ),
}
_SET = "mosaicd sets it for every run; use a variable of another name"
_OF_SERVICE = "systemd means it for the process that it has started; a run never has it"
_SERVICE_PREFIXES = ("WATCHDOG_", "LISTEN_")


def merged(caller: Mapping[str, str], chosen: Mapping[str, str], *, manages_gpus: bool) -> dict[str, str]:
    """Return the variables of the caller's shell with the `chosen` ones over them.

    A chosen thread count replaces all thread counts of the shell, not only the one of its name.  Where GPUs
    are managed, no submitted variable chooses GPUs.
    """
    names = set(THREAD_COUNTS) if chosen.keys() & set(THREAD_COUNTS) else set()
    both = {name: value for name, value in caller.items() if name not in names} | dict(chosen)
    return without_gpu_variables(both) if manages_gpus else both


def without_long_directory(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the caller's shell without a TMPDIR that is too long for sockets in it.

    The run then has a short directory of its own.
    """
    is_long = len(caller.get("TMPDIR", "").encode(errors="surrogateescape")) > LONGEST_TMPDIR_BYTES
    return {name: value for name, value in caller.items() if name != "TMPDIR" or not is_long}


def thread_counts(given: Mapping[str, str], cpus: int) -> dict[str, str]:
    """Return the thread counts that `given` lacks: its first count, or the granted CPUs without any.

    Of a list (`4,2`, for nested loops) the first number counts.  If the first count is no number (empty, for
    example), the submitter wants no count, and none is set.
    """
    found = [given[name] for name in THREAD_COUNTS if name in given]
    count = found[0].partition(",")[0].strip() if found else str(cpus)
    if not (count.isascii() and count.isdigit()):
        return {}
    return {name: count for name in THREAD_COUNTS if name not in given}


def check_chosen(chosen: Mapping[str, str], path: Path, faults: Faults, *, manages_gpus: bool) -> None:
    """Add a fault for each variable that a user has chosen and that the launch would overwrite or drop.

    Note: only for variables that a user names in the request.  A config may have come from elsewhere with
    such a variable: see `overwritten_names`.
    """
    for name in chosen:
        reason = _why_not_chosen(name, manages_gpus)
        if reason:
            faults.add((*path, name), reason)


def overwritten_names(
    config: Mapping[str, str], chosen: Mapping[str, str], *, manages_gpus: bool
) -> list[str]:
    """Return the sorted names of a config's variables, and of `chosen` run ids, whose values do not count."""
    names = {name for name in config if _why_not_chosen(name, manages_gpus)}
    return sorted(names | (REWRITTEN & (config.keys() | chosen.keys())))


def gpu_variables(slots: tuple[int, ...]) -> dict[str, str]:
    """Return the variables that show the granted GPU slots and no others.

    An empty CUDA_VISIBLE_DEVICES hides all GPUs, an absent one would show the GPUs of other runs.
    """
    visible = ",".join(str(slot) for slot in slots)
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}


def without_gpu_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without the variables that choose GPUs."""
    return {name: value for name, value in environment.items() if name not in GPU_NAMES}


def _why_not_chosen(name: str, manages_gpus: bool) -> str | None:
    if is_of_a_service(name):
        return _OF_SERVICE
    if name in SET_BY_LAUNCH or (manages_gpus and name in GPU_NAMES):
        return _DECIDED_BY.get(name, _SET)
    return None


def is_of_a_service(name: str) -> bool:
    """Return whether a variable is meant for the process that systemd has started."""
    return name == "NOTIFY_SOCKET" or name.startswith(_SERVICE_PREFIXES)
