"""Reading a TrainRunConfig from a file or from standard input, as JSON or TOML; and `--set`.

This module checks only the syntax; the daemon checks the content.
"""

import json
import sys
from typing import Any

from mosaicctl.exits import UsageError
from mosaicd.protocol import Json


def read_config(path: str) -> Json:
    """Return the config in `path` (`-`: standard input); UsageError names file, line and fault."""
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            raw = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                raw = file.read()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 text (byte {error.start})") from error
    return parse_config(text, name)


def parse_config(text: str, name: str) -> Json:
    """Return the object in `text`.

    The ending of `name` (.toml or .json) selects the format; otherwise text that begins with { or [ is JSON.
    """
    looks_like_json = text.lstrip()[:1] in ("{", "[")
    if name.endswith(".toml") or not (name.endswith(".json") or looks_like_json):
        return _parse_toml(text, name)
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{name}: a config must be a JSON object")
    return config


def _parse_toml(text: str, name: str) -> Json:
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{name}: not TOML: {error}") from error


def assign(target: Json, items: list[str]) -> None:
    """Store each K=V in `target`: a dot in K separates levels; V is JSON if it is valid, else a string."""
    for item in items:
        key, equals, value = item.partition("=")
        names = key.split(".")
        if not equals or not all(names):
            raise UsageError(f"--set {item}: write K=V; a dot in K separates levels (optimizer.lr=0.1)")
        node = target
        for name in names[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise UsageError(f"--set {item}: the value of {name} is not an object")
        node[names[-1]] = _parse_value(value)


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
