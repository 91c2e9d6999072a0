"""The memory limit of a submit: only what the submitter asked for."""

from typing import Any

import pytest

from mosaicd.core.program import Defaults
from mosaicd.core.spec import Spec
from mosaicd.core.submit import make_spec
from mosaicd.protocol.errors import InvalidParams
from mosaicd.protocol.messages import Submit


def spec_of(**params: Any) -> Spec:
    return make_spec(Submit(**params), Defaults(python="/p/python", home="/home/ada", workers={}))


def config(**memory: int) -> dict[str, Any]:
    """Return a config with or without memory_mb."""
    return {
        "run_name": "x", "entry_point": "python", "arguments": [], "environment": {}, "artifacts": {},
        "resources": {"cpus": 1, "gpus": {"requested": 0}, **memory},
    }  # fmt: skip


def test_the_memory_limit_is_what_the_submit_asks_for() -> None:
    """memory_mb of the submit has precedence over the config's; without both there is no limit."""
    assert spec_of(command=["true"]).resources.memory_mb is None
    assert spec_of(command=["true"], memory_mb=300).resources.memory_mb == 300
    assert spec_of(config=config(memory_mb=4096)).resources.memory_mb == 4096
    asked = spec_of(config=config(memory_mb=4096), memory_mb=100)
    assert asked.resources.memory_mb == 100
    assert asked.digest != spec_of(config=config(memory_mb=4096)).digest
    assert spec_of(config=config()).resources.memory_mb is None
    assert spec_of(config=config(), memory_mb=300).resources.memory_mb == 300


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"command": ["true"], "memory_mb": 0}, "memory_mb"),
        ({"command": ["true"], "memory_mb": 2**31}, "memory_mb"),
        ({"config": config(memory_mb=2**31)}, "resources.memory_mb"),
    ],
)
def test_a_memory_limit_out_of_range_is_refused(params: dict[str, Any], path: str) -> None:
    """A limit below 1 MiB or above 1 PiB is refused; the kernel would read another number."""
    with pytest.raises(InvalidParams) as caught:
        spec_of(**params)
    assert [fault["path"] for fault in caught.value.data["errors"]] == [path]
