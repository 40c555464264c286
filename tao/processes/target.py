"""The application that is served, by name: `package.module:server`.

Owns the form of that name, and how a Server is made of it. The worker's main thread.
"""

from __future__ import annotations

import importlib
import inspect

from tao.errors import TaoError
from tao.server import Server

__all__ = ["TargetError", "check_target", "load_server"]


class TargetError(TaoError):
    """The name of an application does not lead to a Server. Its text says where the way ends."""


def check_target(text: str) -> str:
    """`text`, if it has the form; imports nothing. Raises ValueError if it has not."""
    module, colon, path = text.partition(":")
    names = [*module.split("."), *path.split(".")]
    if not colon or not all(name.isidentifier() for name in names):
        raise ValueError(
            f"a server is named like package.module:server, by its module and its name there, "
            f"not {text!r}"
        )
    return text


def load_server(target: str) -> Server:
    """Import the module and return the Server of that name, or what the function of that name returns.

    Raises TargetError when there is none, ValueError for a name that is none, and whatever the module or
    the function raise.
    """
    module_name, _, path = check_target(target).partition(":")
    found: object = _import(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise TargetError(f"{target}: there is no {name!r} in {module_name}") from None
    if isinstance(found, Server):
        return found
    if not callable(found):
        raise TargetError(
            f"{target} is a {type(found).__name__}; it must be a tao.Server, or a function that returns one"
        )
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise TargetError(f"{target} cannot be called without arguments: {error}") from None
    except ValueError:
        pass  # a built-in without a signature: the call will show
    made = found()
    if not isinstance(made, Server):
        raise TargetError(f"{target}() returned a {type(made).__name__}, which is no tao.Server")
    return made


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that is missing further in is the application's affair, and its traceback says where.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise TargetError(
                f"there is no module {error.name!r}: is the working directory right, or --app-dir?"
            ) from None
        raise
