"""Values of a recipe's fields and a model's options from the command line: ``weight_decay=5e-4 zero_gamma=true``.

They are kept as texts of one form, ``weight_decay=0.0005``, so that a variant is named alike however it was written.
"""

import difflib
import types
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_args, get_origin

import torch

from resnet.models import create_model, default_options
from resnet.recipe import Recipe

_NONE = "none"
_FLAGS = {"precision": "PRECISION", "kernels": "KERNELS"}  # fields that have a variable of their own
_WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
_FIELDS = {
    field.name: field.type
    for field in fields(Recipe)
    if field.name not in _FLAGS and {*get_args(field.type), field.type} & {*_WANTED}
}


def parse_settings(text: str) -> tuple[str, ...]:
    """Split ``name=value name=value`` and bring each into its one form, in the order of the names.

    Raises ValueError for anything else, a name given twice, and a value of the wrong type of a recipe's field.
    """
    return tuple(f"{name}={_one_form(name, value)}" for name, value in sorted(_split(text).items()))


def parse_sweep(text: str) -> tuple[str, ...]:
    """Split ``name=value,value name=value`` like :func:`parse_settings`; equal values of a name count once.

    Raises ValueError, also for a field whose values are lists, and for fewer than two combinations.
    """
    swept = []
    for name, values in sorted(_split(text).items()):
        if get_origin(_FIELDS.get(name)) is tuple:
            raise ValueError(f"{name} can't be swept, because its value is a list: give each list with SET= (--set)")
        forms = dict.fromkeys(_one_form(name, value) for value in values.split(","))
        swept.append(f"{name}={','.join(forms)}")
    if all("," not in values for values in swept):
        raise ValueError(f"a sweep needs a name with several values, such as learning_rate=0.05,0.1, not {text!r}")
    return tuple(swept)


def combinations(sweep: Sequence[str]) -> list[tuple[str, ...]]:
    """List the settings of every combination of a sweep's values, the first name's values changing last."""
    found = [()]
    for name, values in (one.split("=", 1) for one in sweep):
        found = [(*before, f"{name}={value}") for before in found for value in values.split(",")]
    return found


def parse_options(model: str, text: str) -> dict:
    """Return the model's options in ``name=value name=value``; none for an empty text. Raises ValueError."""
    given = parse_settings(text) if text.strip() else ()
    if fields_of_recipe := [name for name in dict(one.split("=", 1) for one in given) if name in _FIELDS]:
        raise ValueError(f"{', '.join(fields_of_recipe)} belongs to the recipe, not to {model}")
    return with_settings(given, model, Recipe(), {})[1]


def with_settings(settings: Sequence[str], model: str, recipe: Recipe, options: dict) -> tuple[Recipe, dict]:
    """Return a recipe and a model's options with these settings.

    Raises ValueError for a name that neither has, with the available ones, and for an impossible value.
    """
    recipe_changes, options = {}, dict(options)
    defaults = {name: value for name, value in default_options(model).items() if name != "num_classes"}
    changes_model = False
    for name, text in (one.split("=", 1) for one in settings):
        if name in _FIELDS:
            recipe_changes[name] = _parse(name, text, _FIELDS[name])
        elif name in defaults:
            options[name] = _parse(name, text, type(defaults[name]))
            changes_model = True
        elif name in _FLAGS:
            raise ValueError(f"{name} has a variable of its own, {_FLAGS[name]}= (--{name})")
        elif name == "num_classes":
            raise ValueError("num_classes follows from the data")
        else:
            close = difflib.get_close_matches(name, [*_FIELDS, *_FLAGS, *defaults], 1)
            known = f"fields of the recipe: {', '.join(_FIELDS)}; options of {model}: {', '.join(defaults)}"
            raise ValueError(f"nothing is called {name!r}; {f'did you mean {close[0]}?' if close else known}")
    if changes_model:
        _check_model(model, tuple(sorted(options.items())))
    recipe = replace(recipe, **recipe_changes)
    if beyond := [m for m in recipe_changes.get("milestones", ()) if m > recipe.iterations]:
        raise ValueError(f"milestones {', '.join(map(str, beyond))} are beyond the {recipe.iterations} iterations")
    return recipe, options


@cache
def _check_model(model: str, options: tuple) -> None:
    """Raise ValueError if the model can't be made with these options."""
    with torch.device("meta"):
        create_model(model, **dict(options))


def _split(text: str) -> dict[str, str]:
    """Return the values by their names."""
    given: dict[str, str] = {}
    for part in text.split():
        name, sign, value = part.partition("=")
        if not (name.isidentifier() and sign):
            raise ValueError(f"{part!r} is not of the form name=value")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = value
    if not given:
        raise ValueError("no name=value is given")
    return given


def _one_form(name: str, text: str) -> str:
    """Return the one form of a value; a model's option has it already, but for numbers."""
    if name in _FIELDS:
        return _written(_parse(name, text, _FIELDS[name]))
    for kind in (int, float):
        try:
            return _written(kind(text))
        except ValueError:
            continue
    return text.lower() if text.lower() in ("true", "false") else text


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_written, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return _NONE if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _parse(name: str, text: str, kind: Any) -> Any:
    """Return a value of this type. Raises ValueError."""
    if isinstance(kind, types.UnionType):
        if text.lower() == _NONE:
            return None
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        return tuple(_parse(name, part, get_args(kind)[0]) for part in text.strip("()").split(",") if part)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is str and not text:
            raise ValueError
        return kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"{name} must be {_WANTED[kind]}, not {text!r}") from None
