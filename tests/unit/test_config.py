"""Settings: their sources and precedence, and the refusal of a bad file with all its faults."""

import os
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from mosaicd import config
from mosaicd.config import ConfigError, Overrides, Settings, locations
from mosaicd.config.settings import GROUPS
from mosaicd.protocol.faults import Fault

UID = os.getuid()


def load(tmp_path: Path, text: str, **overrides: Any) -> Settings:
    file = tmp_path / "mosaicd.toml"
    file.write_text(text)
    return config.load(Overrides(config=str(file), **overrides), {"HOME": "/home/ada"})


def faults(tmp_path: Path, text: str, **overrides: Any) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **overrides)
    return caught.value.faults


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    """Without a config file, every setting has its default."""
    settings = config.load(environ={"HOME": str(tmp_path)})
    assert settings.timeouts.grace_s == 30.0
    assert settings.cpus.slots == len(os.sched_getaffinity(0))
    assert settings.gpus.static == 0
    assert settings.config_file is None


def test_the_config_file_of_the_user_is_read(tmp_path: Path) -> None:
    """$XDG_CONFIG_HOME/mosaicd/mosaicd.toml is read if it exists."""
    file = tmp_path / "mosaicd/mosaicd.toml"
    file.parent.mkdir()
    file.write_text("[gpus]\nstatic = 3\n")
    settings = config.load(environ={"HOME": "/", "XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.gpus.static == 3
    assert settings.config_file == file


def test_a_config_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """If the file of --config cannot be read, the error has its path and the reason."""
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file"):
        config.load(Overrides(config=str(tmp_path / "nothing.toml")), {})
    with pytest.raises(ConfigError, match="Is a directory"):
        config.load(Overrides(config=str(tmp_path)), {})


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """A path or log level on the command line wins over the file; relative paths are made absolute."""
    text = '[paths]\nstate_dir = "/var/tmp/a"\nsocket = "/var/tmp/a.sock"\n[log]\nlevel = "error"\n'
    settings = load(tmp_path, text, state_dir="state", log_level="debug")
    assert settings.state_dir == Path.cwd() / "state"
    assert settings.socket == Path("/var/tmp/a.sock")
    assert settings.log.level == "debug"


def test_a_config_error_lists_all_faults(tmp_path: Path) -> None:
    """One error lists all unknown sections and keys, wrong types and ranges, each with its path and rule."""
    text = """
        [timeouts]
        grace_s = true
        start_s = -1
        heartbeat_s = nan
        hartbeat_s = 3
        [cpus]
        slots = 0
        [gpus]
        static = 65
        [limits]
        batch = 1.5
        [log]
        level = "loud"
        [wrokers]
        [workers.tabular]
        pyhton = "/usr/bin/python3"
        [paths]
        socket = 3
        state = "/x"
    """
    rules = dict(faults(tmp_path, text))
    assert list(rules) == [
        "[timeouts] grace_s", "[timeouts] start_s", "[timeouts] heartbeat_s", "[timeouts] hartbeat_s",
        "[cpus] slots", "[gpus] static", "[limits] batch", "[log] level", "[wrokers]",
        "[workers.tabular] pyhton", "[workers.tabular] python", "[paths] state", "[paths] socket",
    ]  # fmt: skip
    assert rules["[timeouts] grace_s"] == "must be a number of seconds from 0 to 31536000, not true"
    assert rules["[gpus] static"] == "must be a whole number from 0 to 64, not 65"
    assert "debug, info" in rules["[log] level"]


def test_each_line_of_the_error_names_the_file(tmp_path: Path) -> None:
    """Each fault of the file is a line that begins with the file's path; the fault of a flag is not."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "[cpus]\nslots = 0\n[x]\n", log_level="loud")
    lines = str(caught.value).splitlines()
    assert [line.startswith(f"{tmp_path}/mosaicd.toml: [") for line in lines] == [True, True, False]
    assert lines[2].startswith("--log-level must be one of")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[cpus\n", "TOML.*line 1"),
        (b"a = '\xff'", "UTF-8"),
        (b"cpus = 3", r"cpus .*\[cpus\]"),
    ],
)
def test_a_file_that_is_not_toml_or_not_utf8_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """The error has the path of the file and the place of the fault."""
    file = tmp_path / "x.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"x\.toml: .*{words}"):
        config.load(Overrides(config=str(file)), {"HOME": "/"})


def test_a_longest_back_off_below_the_first_is_refused(tmp_path: Path) -> None:
    """[retries] backoff_max_s must be at least backoff_s."""
    [fault] = faults(tmp_path, "[retries]\nbackoff_s = 20\nbackoff_max_s = 10")
    assert fault.path == "[retries] backoff_max_s" and "backoff_s" in fault.rule


def test_worker_settings_are_read(tmp_path: Path) -> None:
    """[workers.KIND] has the interpreter in which the worker is installed, and its module."""
    text = '[workers.tabular]\npython = "/opt/t/bin/python"\n[workers.x]\npython = "/p"\nmodule = "m"'
    settings = load(tmp_path, text)
    assert settings.workers["tabular"] == config.Worker("/opt/t/bin/python")
    assert settings.workers["x"].module == "m"


def test_a_whole_number_of_seconds_becomes_a_float(tmp_path: Path) -> None:
    """`grace_s = 3` is 3.0 seconds."""
    grace_s = load(tmp_path, "[timeouts]\ngrace_s = 3").timeouts.grace_s
    assert isinstance(grace_s, float)
    assert grace_s == 3.0


def test_a_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """A socket path of more than 107 bytes is refused when settings are loaded, also if it is the default."""
    long = "/" + "d" * 107
    (fault,) = faults(tmp_path, "", socket=long)
    assert fault[0] == "--socket"
    assert "108" in fault[1]
    assert load(tmp_path, "", socket=long[:-1]).socket == Path(long[:-1])
    with pytest.raises(ConfigError, match=long):
        config.load(environ={"HOME": "/", "XDG_RUNTIME_DIR": long})


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Paths are sent as JSON, so a path that is not UTF-8 is refused."""
    [fault] = faults(tmp_path, "", state_dir="/x/\udcff")
    assert fault.path == "--state-dir" and "UTF-8" in fault.rule


def test_the_socket_follows_the_runtime_directory(tmp_path: Path) -> None:
    """$XDG_RUNTIME_DIR is used; without it /run/user/<uid> if that exists; otherwise /tmp/mosaicd-<uid>."""
    assert locations.runtime_dir({"XDG_RUNTIME_DIR": "/run/x"}, 7) == Path("/run/x/mosaicd")
    (tmp_path / "7").mkdir()
    assert locations.runtime_dir({}, 7, tmp_path) == tmp_path / "7/mosaicd"
    assert locations.runtime_dir({"XDG_RUNTIME_DIR": "relative"}, 8, tmp_path) == Path("/tmp/mosaicd-8")


def test_state_and_config_follow_the_xdg_variables() -> None:
    """The default is ~/.local/state/mosaicd; without $HOME, the home directory of the user database."""
    assert locations.user_locations({"XDG_STATE_HOME": "/s"}, UID).state_dir == Path("/s/mosaicd")
    default_paths = locations.user_locations({"HOME": "/home/ada"}, UID)
    assert default_paths.state_dir == Path("/home/ada/.local/state/mosaicd")
    assert default_paths.config_file == Path("/home/ada/.config/mosaicd/mosaicd.toml")
    assert locations.user_locations({}, UID).state_dir.is_absolute()


def test_system_mode_ignores_the_users_environment() -> None:
    """The system daemon uses /run/mosaicd and /var/lib/mosaicd."""
    settings = config.load(Overrides(system=True), {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1"})
    assert settings.paths == config.Paths(Path("/var/lib/mosaicd"), Path("/run/mosaicd/mosaicd.sock"))


def test_printed_settings_give_the_same_settings(tmp_path: Path) -> None:
    """The output of --print-config is a config file that gives the same settings."""
    settings = load(
        tmp_path,
        '[timeouts]\ngrace_s = 0.25\n[limits]\nbatch = 7\n[workers."a.b"]\npython = "/p \\"q\\"\\n\\u007f"\n',
        state_dir="/x/ä", socket="/x/s",
    )  # fmt: skip
    printed = config.to_toml(settings)
    again = load(tmp_path, printed)
    assert replace(again, config_file=None) == replace(settings, config_file=None)
    assert set(tomllib.loads(printed)) == {"paths", *GROUPS, "workers"}


def test_every_setting_is_described_and_its_default_is_valid() -> None:
    """Each setting has a sentence and a range or choices; its default is allowed."""
    for name, cls in GROUPS.items():
        group = cls()
        for field in fields(cls):
            assert field.metadata["doc"], (name, field.name)
            value = getattr(group, field.name)
            if "choices" in field.metadata:
                assert value in field.metadata["choices"]
            elif "words" in field.metadata:
                assert value and all(word.isupper() for word in value)
            else:
                assert field.metadata["low"] <= value <= field.metadata["high"], (name, field.name)


def test_every_setting_is_used() -> None:
    """The code reads each setting outside of `config`."""
    package = Path(config.__file__).parents[1]
    sources = [path for path in package.rglob("*.py") if package / "config" not in path.parents]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names = {field.name for cls in GROUPS.values() for field in fields(cls)}
    assert not {name for name in names if not re.search(rf"\.{name}\b", code)}


def test_watchdog_variables_of_another_process_are_ignored() -> None:
    """WATCHDOG_USEC counts only if WATCHDOG_PID is absent or the daemon's pid."""
    environ = {"HOME": "/", "WATCHDOG_USEC": "3000000", "NOTIFY_SOCKET": "@x", "JOURNAL_STREAM": "8:1"}
    assert config.load(environ=environ).supervisor == config.Supervisor("@x", 3.0, "8:1")
    assert config.load(environ={**environ, "WATCHDOG_PID": str(os.getpid())}).supervisor.watchdog_s == 3.0
    assert config.load(environ={**environ, "WATCHDOG_PID": "1"}).supervisor.watchdog_s is None
    assert config.load(environ={**environ, "WATCHDOG_USEC": "soon"}).supervisor.watchdog_s is None


def test_the_path_of_a_passed_socket_replaces_the_setting() -> None:
    """With a socket from systemd, the settings have its path, which shims receive."""
    settings = config.load(environ={"HOME": "/"})
    assert config.with_socket(settings, Path("/run/z")).socket == Path("/run/z")
