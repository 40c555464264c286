"""Options that can be set in the environment as well.

Contents: add_option, add_switch, fill_in.

Owns the order in which an option gets its value: the command line, then its variable, then its default;
and that a wrong value in the environment names the variable. A variable is looked at only when its
command is run and the command line leaves the option out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tao.cli.outcome import UsageError

__all__ = ["add_option", "add_switch", "fill_in"]

SWITCH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, slots=True)
class _FromEnvironment:
    """Stands in for the value of an option that the command line has left out."""

    variable: str
    default: object
    convert: Callable[[str], object]
    choices: Sequence[object] | None

    def value(self, environment: Mapping[str, str]) -> object:
        text = environment.get(self.variable, "")
        if not text:  # an empty variable is how some shells and unit files say that there is none
            return self.default
        try:
            value = self.convert(text)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise UsageError(f"{self.variable}: {error}") from error
        if self.choices is not None and value not in self.choices:
            names = ", ".join(map(str, self.choices))
            raise UsageError(f"{self.variable}: choose one of {names}, not {text!r}")
        return value


def add_option(
    parser: argparse._ActionsContainer,
    *flags: str,
    variable: str,
    help: str,
    default: object = None,
    convert: Callable[[str], object] = str,
    choices: Sequence[object] | None = None,
    metavar: str | None = None,
    nargs: str | None = None,
) -> None:
    """An option with a value, or with `nargs="?"` an argument.

    Its help tells of its default, unless that is None, and of its variable.
    `convert` makes the value of the text, and raises argparse.ArgumentTypeError, or ValueError, with a
    text for people.
    """
    notes = ([] if default is None else [f"default: {default}"]) + [variable]
    parser.add_argument(
        *flags,
        type=convert,
        choices=choices,
        metavar=metavar,
        nargs=nargs,
        default=_FromEnvironment(variable, default, convert, choices),
        help=f"{help} ({'; '.join(notes)})".replace("%", "%%"),
    )


def add_switch(parser: argparse._ActionsContainer, flag: str, *, variable: str, help: str) -> None:
    """An option without a value, which is off unless it is set. `--no-...` undoes the variable."""
    name = flag.removeprefix("--").replace("-", "_")
    parser.add_argument(
        flag,
        action="store_true",
        default=_FromEnvironment(variable, False, _switch, None),
        help=f"{help} ({variable}=1)".replace("%", "%%"),
    )
    parser.add_argument(
        f"--no-{flag.removeprefix('--')}",
        dest=name,
        action="store_false",
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def _switch(text: str) -> bool:
    if text.lower() not in SWITCH:
        raise argparse.ArgumentTypeError(f"expected 1 or 0, yes or no, on or off, not {text!r}")
    return SWITCH[text.lower()]


def fill_in(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Put a value to every option that was left out. Raises UsageError for a variable that is wrong."""
    for name, value in vars(arguments).items():
        if isinstance(value, _FromEnvironment):
            setattr(arguments, name, value.value(environment))
