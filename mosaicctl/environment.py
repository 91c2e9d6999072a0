"""Which of the caller's environment variables go with a run: an allow-list, argued line by line.

Everything would be wrong: a run outlives the session it came from, so its agent sockets, displays and
tokens would be stale or leaked.  Nothing would be wrong too: `python` must mean the caller's python.
What looks like a secret by its name never goes by itself; `-e NAME` hands it over on purpose.
"""

from collections.abc import Mapping

#: Who and where the caller is; the words and the clock they read.
_IDENTITY = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"}
#: Which interpreter and which libraries the caller's words mean.
_TOOLCHAIN = {
    "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CPATH", "LIBRARY_PATH", "MODULEPATH",
    "LOADEDMODULES",
}  # fmt: skip
#: Where data and caches lie.  Not XDG_RUNTIME_DIR: it vanishes when the caller logs out.
_PLACES = {
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TORCH_HOME", "MPLCONFIGDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
}  # fmt: skip
#: How to reach the network, in both spellings that programs read.
_PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}
#: Headless rendering, and switches of the numeric libraries.  Never CUDA_VISIBLE_DEVICES: slots decide it.
_SWITCHES = {
    "MPLBACKEND", "MUJOCO_GL", "PYOPENGL_PLATFORM", "SDL_VIDEODRIVER", "SDL_AUDIODRIVER",
    "KMP_DUPLICATE_LIB_OK",
    "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH",
}  # fmt: skip

_EXACT = _IDENTITY | _TOOLCHAIN | _PLACES | _PROXIES | {name.upper() for name in _PROXIES} | _SWITCHES
_PREFIXES = (
    "LC_", "CONDA_", "PYTHON", "HF_", "TRANSFORMERS_", "WANDB_", "MLFLOW_", "TORCH_", "JAX_", "XLA_", "NCCL_",
    "RAY_",
)  # fmt: skip
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "_KEY", "PRIVATE", "AUTH")


def is_secret(name: str) -> bool:
    """Whether a variable's name says that its value is a secret."""
    upper = name.upper()
    return any(word in upper for word in _SECRET)


def handed_over(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the caller's environment that goes with a run by itself.

    Values that are not UTF-8 cannot be sent and are left out.
    """
    return {
        name: value
        for name, value in environment.items()
        if (name in _EXACT or name.startswith(_PREFIXES)) and not is_secret(name) and _is_sendable(value)
    }


def shell_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what merely describes the caller's shell: all that goes with a config by itself.

    A config sent from two terminals must stay one config, so nothing that could change its work is added.
    """
    names = _IDENTITY | {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"}
    return {
        name: value
        for name, value in handed_over(environment).items()
        if name in names or name.startswith(("LC_", "XDG_"))
    }


def _is_sendable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
