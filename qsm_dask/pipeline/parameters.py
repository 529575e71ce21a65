"""Coerce what YAML or a command line gives to the type a kernel's signature states."""

import inspect
import math
import types
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

from qsm_dask.errors import ConfigError
from qsm_dask.pipeline import ranges
from qsm_dask.stages import Stage


def resolve(where: str, name: str, stage: Stage, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a stage: those given, checked and coerced, and the defaults.

    Parameters
    ----------
    where : begins messages.
    name : of the stage.
    stage : what the table says of it.
    given : values as a file or the command line has them.

    Raises
    ------
    ConfigError : an unknown parameter (with the nearest name), or a value of the wrong type or out of range.
    """
    said = f"{where}: {name}"
    for parameter in given:
        if parameter not in stage.parameters:
            close = get_close_matches(parameter, stage.parameters, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(stage.parameters) or 'none'}"
            raise ConfigError(f"{said}: no parameter {parameter!r}; {hint}")
    for parameter, default in stage.parameters.items():
        if default is inspect.Parameter.empty and parameter not in given:
            raise ConfigError(f"{said}: needs a value for {parameter!r}; it has no default")
    resolved = dict(stage.parameters)
    for parameter, value in given.items():
        try:
            resolved[parameter] = coerce(value, stage.types[parameter])
            ranges.check(name, parameter, resolved[parameter])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{said}: {parameter}: {error}") from error
    try:
        ranges.check_together(resolved)
    except ValueError as error:
        raise ConfigError(f"{said}: {error}") from error
    return resolved


def coerce(value: Any, kind: Any) -> Any:
    """`value` as the annotated type `kind`.

    PyYAML reads `1e-3` as a string and `3` as an integer; both are meant as numbers
    where the signature says float.

    Raises
    ------
    ValueError : the value does not fit.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, get_args(kind))
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise ValueError(f"{value!r} is none of {', '.join(map(repr, get_args(kind)))}")
    if origin is tuple:
        return _coerce_tuple(value, get_args(kind))
    if kind is bool:
        return _coerce_bool(value)
    if kind in (int, float):
        return _coerce_number(value, kind)
    if kind is str and isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not a {getattr(kind, '__name__', kind)}")


def _coerce_union(value: Any, options: tuple[Any, ...]) -> Any:
    if type(None) in options and (value is None or value == "none"):
        return None
    for option in options:
        if option is type(None):
            continue
        try:
            return coerce(value, option)
        except ValueError:
            continue
    raise ValueError(f"{value!r} fits none of {', '.join(getattr(o, '__name__', str(o)) for o in options)}")


def _coerce_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    items = value.split(",") if isinstance(value, str) else value
    items = list(items) if isinstance(items, list | tuple) else [items]
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(coerce(item, kinds[0]) for item in items)
    if len(items) != len(kinds):
        raise ValueError(f"{value!r} has {len(items)} values, expected {len(kinds)}")
    return tuple(coerce(item, kind) for item, kind in zip(items, kinds, strict=True))


def _coerce_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"{value!r} is neither true nor false")


def _coerce_number(value: Any, kind: type[int] | type[float]) -> int | float:
    if value is True or value is False:  # which Python takes for 1 and 0
        raise ValueError(f"{value!r} is not a number")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is not a number") from error
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    if kind is float:
        return number
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)
