"""The environment variables of the caller that a run receives: an allow-list.

A run outlives the session of its caller, so agent sockets, displays and tokens of the session would become
stale or leak.  But `python` must mean the caller's python, so a run does not start with an empty environment.
A variable whose name marks a secret is passed only with `-e NAME`.
"""

from collections.abc import Mapping

#: The user, the directories, the language and the time zone of the caller.
_IDENTITY = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"}
#: The interpreter, the compiler and the libraries of the caller.
_TOOLCHAIN = {
    "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CPATH", "LIBRARY_PATH", "MODULEPATH",
    "LOADEDMODULES",
}  # fmt: skip
#: The directories of data and caches.  Not XDG_RUNTIME_DIR: it is removed when the caller logs out.
_DIRECTORIES = {
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TORCH_HOME", "MPLCONFIGDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
}  # fmt: skip
#: Network proxies; programs read these names in lower or in upper case.
_PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}
#: Headless rendering, and switches of numeric libraries.  Not CUDA_VISIBLE_DEVICES: slots decide it.
_SWITCHES = {
    "MPLBACKEND", "MUJOCO_GL", "PYOPENGL_PLATFORM", "SDL_VIDEODRIVER", "SDL_AUDIODRIVER",
    "KMP_DUPLICATE_LIB_OK",
    "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH",
}  # fmt: skip

_NAMES = _IDENTITY | _TOOLCHAIN | _DIRECTORIES | _PROXIES | {name.upper() for name in _PROXIES} | _SWITCHES
_PREFIXES = (
    "LC_", "CONDA_", "PYTHON", "HF_", "TRANSFORMERS_", "WANDB_", "MLFLOW_", "TORCH_", "JAX_", "XLA_", "NCCL_",
    "RAY_",
)  # fmt: skip
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "_KEY", "PRIVATE", "AUTH")


def is_secret(name: str) -> bool:
    """Return whether the name of a variable marks its value as a secret."""
    upper = name.upper()
    return any(word in upper for word in _SECRET_WORDS)


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that a command receives without -e.

    Values that are not UTF-8 cannot be sent and are omitted.
    """
    return {
        name: value
        for name, value in environment.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and not is_secret(name) and _is_sendable(value)
    }


def shell_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that a config receives without -e.

    The same config, submitted from two terminals, must do the same work, so only variables that describe the
    user, the shell and the Python environment are passed.
    """
    names = _IDENTITY | {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"}
    return {
        name: value
        for name, value in inherited_environment(environment).items()
        if name in names or name.startswith(("LC_", "XDG_"))
    }


def _is_sendable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
