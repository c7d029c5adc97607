"""Literals: reading one, and putting together those that the shell split.

`executor.call.parse_literal` and `join_split` are the way in. They settle plain words and numbers by
themselves and import this module for the rest.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

from executor.call import NAMES

#: What a literal may begin with; a cheap test that spares most words the parsers.
_PREFIXES = ("", *"bruBRU", "br", "rb", "bR", "Br", "rB", "Rb", "BR", "RB")
_STARTS = (*"0123456789+-.[({", *NAMES, "set(", *(prefix + quote for prefix in _PREFIXES for quote in "'\""))

_CLOSING = {"[": "]", "(": ")", "{": "}", "'": "'", '"': '"'}

#: How deep a literal that the shell split may nest. It bounds how often one text is looked at.
_DEEPEST = 50

_MISSING = object()


def read(text: str, otherwise: object) -> object:
    """Return the literal that `text` is, without blanks around it, else `otherwise`; this never raises."""
    if not text.startswith(_STARTS):
        return otherwise
    if text[0] in '[{"':
        import json  # Python's own literals do without

        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # it may be Python's literal yet
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape such as "\d" is no one's concern here
            tree = ast.parse(text, mode="eval")
            if "#" in text:
                ast.parse(f"({text})", mode="eval")  # fails where a comment ends the text: 1 #2 is no literal
        return _build(tree.body)
    except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        return otherwise


def _build(node: ast.AST | None) -> Any:
    """Return the value of a literal's syntax tree, or raise ValueError if it is not one."""
    match node:
        case ast.Constant(value=value) if value is not ...:
            return value
        case ast.Name(id=name) if name in NAMES:
            return NAMES[name]
        case ast.List(elts=items):
            return [_build(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple([_build(item) for item in items])
        case ast.Set(elts=items):
            return {_build(item) for item in items}
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):  # repr of the empty set
            return set()
        case ast.Dict(keys=keys, values=values):
            return {_build(key): _build(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=ast.Constant() | ast.Name() as operand):
            number = _build(operand)
            if type(number) in (int, float, complex):
                return -number if isinstance(sign, ast.USub) else number
        case ast.BinOp(op=ast.Add() | ast.Sub() as sign, right=ast.Constant() | ast.Name()):
            real, imaginary = _build(node.left), _build(node.right)
            if type(real) in (int, float) and type(imaginary) is complex:
                return complex(real, -imaginary.imag if isinstance(sign, ast.Sub) else imaginary.imag)
    raise ValueError(f"{type(node).__name__} is no part of a literal")


def join(texts: Sequence[str], named: bool) -> list[str]:
    """Return `texts`, the split literals among them put together; see `executor.call.join_split`."""
    joined, index = [], 0
    while index < len(texts):
        text, after = texts[index], index + 1
        start = text.find("=") + 1 if named else 0
        if text[start:].lstrip().startswith(_STARTS):
            end = _closes_at(texts, index, start) + 1
            whole = " ".join(texts[index:end])
            if end > after and read(whole[start:].strip(), otherwise=_MISSING) is not _MISSING:
                text, after = whole, end
        joined.append(text)
        index = after
    return joined


def _closes_at(texts: Sequence[str], index: int, start: int) -> int:
    """Return the index of the text that closes what `texts[index][start:]` opens; `index` if none does."""
    awaited: list[str] = []  # the characters that close what is open, the innermost last
    for number in range(index, len(texts)):
        escaped = False
        for char in texts[number][start if number == index else 0 :]:
            if escaped:
                escaped = False
            elif awaited and char == awaited[-1]:
                awaited.pop()
            elif awaited and awaited[-1] in "'\"":
                escaped = char == "\\"
            elif char in _CLOSING:
                awaited.append(_CLOSING[char])
            elif char in ")]}":
                return index
        if not awaited:
            return number
        if len(awaited) > _DEEPEST:
            break
    return index
