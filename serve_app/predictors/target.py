"""Classes named by an import path in the config, and their construction with clear errors."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from serve_app.errors import PredictorError

T = TypeVar("T")


def import_class(path: str, base: type[T]) -> type[T]:
    """Imports the class at `path` and makes sure that it is a concrete `base`.

    Raises:
        PredictorError: no such module or class, its module cannot be imported, or it is no `base`.
    """
    module_name, _, class_name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{module_name}.".startswith(f"{exc.name}."):
            raise PredictorError(f"_target_ {path}: there is no module {exc.name!r}") from exc
        raise PredictorError(f"_target_ {path}: {module_name} needs {exc.name!r}") from exc
    except Exception as exc:
        raise PredictorError(
            f"_target_ {path}: {module_name} cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise PredictorError(f"_target_ {path}: module {module_name} has no class {class_name!r}")
    if not issubclass(found, base):
        raise PredictorError(
            f"_target_ {path}: not a subclass of {base.__module__}.{base.__name__}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise PredictorError(f"_target_ {path}: the class does not implement {missing}")
    return found


def construct(cls: type[T], arguments: Mapping[str, Any]) -> T:
    """Calls the constructor of `cls`; a wrong argument becomes a PredictorError that names it."""
    where = f"{cls.__module__}.{cls.__name__}"
    _check_arguments(cls, arguments, where)
    try:
        return cls(**arguments)
    except PredictorError:
        raise
    except Exception as exc:
        raise PredictorError(f"{where}: {type(exc).__name__}: {exc}") from exc


def _check_arguments(cls: type, arguments: Mapping[str, Any], where: str) -> None:
    """Compares argument names with the constructor's signature."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(cls).parameters.values()
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in by_name}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    allowed = f"Allowed: {', '.join(map(_spell, named.values())) or 'none'}."
    unknown = [repr(name) for name in arguments if name not in named]
    if unknown and not takes_any:
        raise PredictorError(f"{where}: unknown argument {', '.join(unknown)}. {allowed}")
    missing = [
        repr(name)
        for name, parameter in named.items()
        if parameter.default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        raise PredictorError(f"{where}: missing argument {', '.join(missing)}. {allowed}")


def _spell(parameter: inspect.Parameter) -> str:
    """Writes a parameter as its class declares it, such as ``threads: int = 1``."""
    kind = parameter.annotation
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    default = parameter.default
    given = "" if default is inspect.Parameter.empty else f" = {default!r}"
    return f"{parameter.name}: {text}{given}"
