"""The text of a program of torch.export (`models/model.json`), by a grammar, before torch makes code of it.

torch evaluates expressions with sympy's `sympify`, which is Python's `eval`; it writes names of values, keys of inputs and
guards into Python code that it executes; and it looks up operators by dotted names from `torch` on, `torch.os` included. So
expressions and guards must be arithmetic of integers, symbols and sizes, names must be names, and operators be among those
of `torch.ops.aten` that reach no file.
"""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path

from pixio_robot.common.errors import UserError, printable

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(?:save|from_file|_print)\b)\w+\.\w+"
    r"|_operator\.(?:eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|truediv|and_|or_)"
    r"|math\.trunc|torch\.sym_(?:not|int|float|ite|max|min)"
)
_NAME = re.compile(r"[\w.]*")
_DESCRIPTION = re.compile(r"[^\x00-\x1f\x7f-\x9f\"'\\`]*")
"""What was traced, for people; torch executes it nowhere, but it may come to stand in a comment of code."""
_DESCRIPTIONS = frozenset(("nn_module_stack", "torch_fn", "torch_version", "source_fn_stack", "custom"))
_NOT_ARITHMETIC = frozenset(("as_operator", "as_graph", "as_custom_obj", "as_complex"))

_MOST_CHARACTERS = 1000
_LARGEST = 1 << 63
_FUNCTIONS = frozenset(
    (
        "Add",
        "Mul",
        "FloorDiv",
        "ModularIndexing",
        "Mod",
        "PythonMod",
        "CleanDiv",
        "CeilDiv",
        "IntTrueDiv",
        "FloatTrueDiv",
        "ToFloat",
    )
    + ("TruncToInt", "FloorToInt", "CeilToInt", "Identity", "Max", "Min", "Eq", "Ne", "Le", "Lt", "Ge", "Gt")
)
_SIZE = re.compile(r"L(?:\['[\w.]+'\])+\.(?:size|stride)\(\)\[\d+\]")
"""Of an input, as guards call it."""
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CONTAINERS = (None, "builtins.dict", "builtins.tuple", "builtins.list")


def check_program(program: object, path: Path) -> None:
    """Check that a program says nothing but arithmetic on tensors.

    Raises:
        UserError: It does; the message names what.
    """
    try:
        assert isinstance(program, dict)
        for entry in program["graph_module"]["graph"]["inputs"]:
            assert set(entry) == {"as_tensor"}
        _check(program, "")
    except _UnknownError as error:
        raise UserError(
            f"{path} was not loaded: its program has {printable(str(error))[:200]}, which is no arithmetic on tensors."
        ) from None
    except (AssertionError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} was not loaded: its program is not written as torch.export writes one.") from error


class _UnknownError(Exception):
    """What a program may not say."""


def _check(value: object, key: str) -> None:
    """Check a value that stands at a key, and all in it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if _NAME.fullmatch(name) is None or (name in _NOT_ARITHMETIC and inner is not None):
                raise _UnknownError(name)
            _check(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        if not is_arithmetic(text):
            raise _UnknownError(f"the expression {text}")
    elif key in ("in_spec", "out_spec"):
        _check_containers(json.loads(text))
    elif key == "guards_code":
        if not is_arithmetic(_SIZE.sub("s0", text)):
            raise _UnknownError(f"the guard {text}")
    elif key == "target" and text.startswith(("torch", "_operator", "math", "#")):
        if _OPERATOR.fullmatch(text) is None:
            raise _UnknownError(f"the operator {text}")
    elif key == "as_string" or key in _DESCRIPTIONS:
        if _DESCRIPTION.fullmatch(text) is None:
            raise _UnknownError(f"the text {text}")
    elif _NAME.fullmatch(text) is None:
        raise _UnknownError(f"the name {text}")


def _check_containers(spec: object) -> None:
    """Check how inputs or outputs are put together: dictionaries, tuples and lists, with keys that are names."""
    if isinstance(spec, list):
        assert len(spec) == 2 and spec[0] == 1  # version, and the tree
        spec = spec[1]
    assert isinstance(spec, Mapping)
    context = spec["context"]
    keys = json.loads(context) if context is not None else None
    plain = keys is None or (
        isinstance(keys, list) and all(isinstance(key, str) and _NAME.fullmatch(key) for key in keys)
    )
    if spec["type"] not in _CONTAINERS or not plain:
        raise _UnknownError(f"the container {spec['type']} of {context}")
    for inner in spec["children_spec"]:
        _check_containers(inner)


def is_arithmetic(text: str) -> bool:
    """Tell whether an expression is arithmetic of integers and symbols that sympy evaluates at once."""
    if len(text) > _MOST_CHARACTERS or not text.isascii():
        return False
    try:
        return _is_arithmetic(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_arithmetic(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=bool()):
            return True
        case ast.Constant(value=int(number)):
            return number < _LARGEST
        case ast.Name(id=name):
            return _SYMBOL.fullmatch(name) is not None
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_arithmetic(operand)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
            return _is_arithmetic(left) and _is_arithmetic(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))):
            return _is_small_power(left, power)
        case ast.Call(
            func=ast.Name(id="Pow"),
            args=[left, ast.Call(func=ast.Name(id="Integer"), args=[ast.Constant(value=int(power))], keywords=[])],
            keywords=[],
        ):
            return _is_small_power(left, power)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return all(isinstance(op, _COMPARISONS) for op in ops) and all(map(_is_arithmetic, [left, *others]))
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=assumptions):
            plain = all(isinstance(a.value, ast.Constant) and isinstance(a.value.value, bool) for a in assumptions)
            return _SYMBOL.fullmatch(name) is not None and plain and all(a.arg for a in assumptions)
        case ast.Call(func=ast.Name(id="Integer"), args=[number], keywords=[]):
            return isinstance(number, ast.Constant | ast.UnaryOp) and _is_arithmetic(number)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in _FUNCTIONS and all(map(_is_arithmetic, arguments))
    return False


def _is_small_power(base: ast.AST, power: int) -> bool:
    """Tell whether a power is one of no power again: sympy computes powers of integers at once."""
    powers = any(
        isinstance(inner, ast.Pow) or (isinstance(inner, ast.Name) and inner.id == "Pow") for inner in ast.walk(base)
    )
    return 0 <= power <= 8 and not powers and _is_arithmetic(base)
