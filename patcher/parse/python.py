"""Python text to syntax, by libcst.

The tree is read in two passes. The first is libcst's own code generation, which gives the offset of every
node for a fifth of what its position metadata takes. The second runs the script in the abstract: it follows
lists and strings through variables, functions and branches to the calls that run a program, so that a build
is found by what it does and not by what it is called.
"""

from __future__ import annotations

import ast
import builtins
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product

import libcst as cst
from libcst._nodes.internal import CodegenState

from patcher.errors import InputError
from patcher.model import Command, Name, Script, Statement, Syntax, Word

# Values that a variable may have at one place. Beyond that a script is not understood better, only slower.
_MOST_ALTERNATIVES = 8
# Lists that begin with the same words differ in options only, and are taken together; two words are enough
# where one list is the other and more.
_SAME_PROGRAM = 3

_RUNNERS = {
    **{f"subprocess.{name}": "list" for name in ("run", "check_call", "check_output", "Popen")},
    "subprocess.call": "code",
    "os.system": "shell",
    "subprocess.getoutput": "shell",
    "subprocess.getstatusoutput": "shell",
    "asyncio.create_subprocess_shell": "shell",
    "asyncio.create_subprocess_exec": "words",
    **{f"os.{name}": "second" for name in ("execv", "execve", "execvp", "execvpe")},
    **{f"os.{name}": "third" for name in ("spawnv", "spawnve", "spawnvp", "spawnvpe")},
}
_LIST_AT = {"list": 0, "code": 0, "named": 0, "shell": 0, "second": 1, "third": 2}
# A function from elsewhere is known by its name only.
_RUNS_BY_NAME = re.compile(
    r"(?:^|_)(?:run|call|exec|execute|popen|spawn|invoke|retry|system|cmd|command)(?:_|$)|^(?:Popen|check_output)$",
)
_PLACE = re.compile(r"error at (\d+):(\d+)")
_BRACKET = re.compile(r"[(\[{}\])\0]")
_MOST_BRACKETS = 200
_EXITS = {"sys.exit", "exit", "quit", "os._exit", "os.abort"}
_ENVIRONMENT = {"os.getenv", "os.environ.get", "os.environ.pop", "os.environ.setdefault"}
_BUILTINS = frozenset(dir(builtins))
_UNKNOWN = "\0"  # stands for what is not known of a string, in the text that is split


@dataclass(frozen=True, slots=True)
class _Text:
    """A string, or anything else that is one word; ``text`` is None where the source does not tell."""

    text: str | None
    start: int
    end: int
    variable: str = ""
    room: bool = False  # an element of a list, where others can be put behind it
    default: bool = False  # what a variable of the environment is taken for, which may have any other value
    parts: tuple[str | None, ...] = ()  # where the text is not known, what of it is


@dataclass(frozen=True, slots=True)
class _Parameter:
    """What the caller hands to the function ``owner``."""

    owner: int
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Rest:
    """Any number of words, out of ``value``."""

    value: _Text | _Parameter


@dataclass(frozen=True, slots=True)
class _List:
    items: tuple[_Item, ...] = ()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What calls gave back. It is true where they failed (``code``, ``failed``) or else succeeded."""

    calls: frozenset[int]
    kind: str  # result, code, failed, ok


@dataclass(frozen=True, slots=True)
class _Flag:
    value: bool


@dataclass(frozen=True, slots=True)
class _Path:
    """Something from outside of the script, by its dotted name."""

    dotted: str


@dataclass(frozen=True, slots=True)
class _Object:
    """A class of the script, or an instance of it."""

    cls: _Class


_Item = _Text | _Parameter | _Rest | _List


@dataclass(eq=False, slots=True)
class _Class:
    bases: tuple[_Class, ...] = ()
    members: dict[str, _Values] = field(default_factory=dict)

    def find(self, name: str) -> _Values:
        if name in self.members:
            return self.members[name]
        return next((found for base in self.bases if (found := base.find(name))), ())


@dataclass(eq=False, slots=True)
class _Function:
    """A function of the script, and what a caller has to know of it once its body was read."""

    number: int
    node: cst.FunctionDef | cst.Lambda
    statement: int
    scope: _State
    cls: _Class | None
    read: bool = False
    defaults: dict[str, _Values] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    runs: list[tuple[_Values, str]] = field(default_factory=list)  # the lists; the parameter that runs them
    returns: _Values = ()
    grown: dict[str, _Values] = field(default_factory=dict)  # parameters whose list the body changes in place


_Value = _Text | _Parameter | _List | _Outcome | _Flag | _Path | _Object | _Function
_Values = tuple[_Value, ...]
_Arguments = list[tuple[cst.Arg, _Values]]
_Bound = Mapping[tuple[int, str], _Values]


@dataclass(slots=True)
class _State:
    """What is known at one place: the variables, and the calls that must have failed to come here."""

    env: dict[str, _Values]
    failed: frozenset[int] = frozenset()
    dead: bool = False

    def copy(self, failed: frozenset[int] = frozenset()) -> _State:
        return _State(dict(self.env), self.failed | failed, self.dead)

    def take(self, other: _State) -> None:
        self.env, self.failed, self.dead = other.env, other.failed, other.dead


class _Span:
    """Notes where a node begins and ends while it is generated."""

    __slots__ = ("end_node", "node", "start", "start_node", "state")

    def __init__(self, state: _Offsets, node: cst.CSTNode, ends: tuple[cst.CSTNode | None, cst.CSTNode | None]) -> None:
        self.state, self.node = state, node
        self.start_node, self.end_node = ends
        self.start = state.offset

    def __enter__(self) -> None:
        return None

    def __exit__(self, *args: object) -> None:
        inner = self.state.inner
        start = inner[self.start_node][0] if self.start_node in inner else self.start
        end = inner[self.end_node][1] if self.end_node in inner else self.state.offset
        inner[self.node] = (start, end)


class _Offsets(CodegenState):
    """Code generation that counts characters.

    ``inner`` are the spans without surrounding blanks and parentheses, ``outer`` those with parentheses.
    """

    __slots__ = ("inner", "offset", "outer", "stack")

    def __init__(self, module: cst.Module, offset: int) -> None:
        super().__init__(default_indent=module.default_indent, default_newline=module.default_newline)
        self.offset = offset
        self.stack: list[int] = []
        self.inner: dict[cst.CSTNode | None, tuple[int, int]] = {}
        self.outer: dict[cst.CSTNode, tuple[int, int]] = {}

    def add_indent_tokens(self) -> None:
        for token in self.indent_tokens:
            self.add_token(token)

    def add_token(self, value: str) -> None:
        self.tokens.append(value)
        self.offset += len(value)

    def before_codegen(self, node: cst.CSTNode) -> None:  # noqa: ARG002  # libcst's interface
        self.stack.append(self.offset)

    def after_codegen(self, node: cst.CSTNode) -> None:
        start = self.stack.pop()
        if isinstance(node, cst.BaseExpression):
            self.outer[node] = (start, self.offset)

    def record_syntactic_position(  # type: ignore[override]  # a generator per node would cost as much as the rest
        self,
        node: cst.CSTNode,
        *,
        start_node: cst.CSTNode | None = None,
        end_node: cst.CSTNode | None = None,
    ) -> _Span:
        return _Span(self, node, (start_node, end_node))


def parse(script: Script) -> Syntax:
    """Read a Python script; ``InputError`` where libcst cannot.

    A call that runs a program list gives one ``Command`` for each list that it may run: they share their
    ``head``. A ``head`` of ``(-1, -1)`` says that the call has no place for a wrapper, and ``bar`` why: its list is a
    ``keyword``, its ``words`` are arguments of their own, it is text for a ``shell``, or the call does not wait for
    what it starts (``background``), or never comes back (``exec``). A wrapper fits a head that is the callee and
    ``(``; other text behind it is that of arguments before the list.
    """
    # The native parser takes neither lone surrogates nor a byte order mark, and drops leading form feeds.
    text = re.sub("[\ud800-\udfff]", "\ufffd", script.text)
    skipped = len(text) - len(text.removeprefix("\ufeff").lstrip("\f"))
    _refuse_deep(script, text)
    try:
        module = cst.parse_module(text[skipped:])
    except (cst.ParserSyntaxError, cst.CSTValidationError, RecursionError) as error:
        raise _not_python(script, text, error) from None
    offsets = _Offsets(module, skipped)
    reader = _Reader(script.text, offsets)
    try:
        module._codegen(offsets)
        if "".join(offsets.tokens).rstrip() != text[skipped:].rstrip():
            raise InputError("libcst does not give this file's text back", where=script.path)
        reader.read_module(module)
    except RecursionError:
        raise InputError("nested too deeply", where=f"{script.path}:1:1") from None
    imports, imports_end = _imports(module, reader)
    return Syntax(
        script=script,
        language="python",
        statements=tuple(Statement(*statement) for statement in reader.statements),
        commands=tuple(reader.commands),
        names=tuple(sorted(reader.names, key=lambda name: name.offset)),
        forwarders=frozenset(
            function.node.name.value
            for function in reader.functions
            if isinstance(function.node, cst.FunctionDef) and _forwards(function)
        ),
        imports=imports,
        imports_end=imports_end,
    )


def _refuse_deep(script: Script, text: str) -> None:
    """Refuse what Python itself refuses: too many brackets would end libcst, and this process with it."""
    depth = 0
    for found in _BRACKET.finditer(text):
        depth = depth + 1 if found[0] in "([{" else max(depth - 1, 0)
        if depth > _MOST_BRACKETS or found[0] == "\0":
            what = "a null byte" if found[0] == "\0" else "too many nested brackets"
            raise InputError(f"not Python: {what}", where=script.where(found.start()))


def _not_python(script: Script, text: str, error: Exception) -> InputError:
    """What is wrong, in the words of the running Python where it agrees: libcst names places only for some."""
    try:
        compile(text.removeprefix("\ufeff"), script.path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as better:
        line, column, what = better.lineno or 1, better.offset or 1, better.msg
    except (ValueError, RecursionError, MemoryError):
        line, column, what = 1, 1, str(error)
    else:
        what = str(getattr(error, "message", error)).partition("\n")[0]
        found = _PLACE.search(what)
        line, column = (int(found[1]), int(found[2]) + 1) if found else (1, 1)
    return InputError(f"not Python: {what}", where=f"{script.path}:{line}:{max(column, 1)}")


def _forwards(function: _Function) -> bool:
    """Whether a function runs what it is called with."""
    return any(_is_open(value, function.number) for values, _ in function.runs for value in values)


def _is_open(value: _Value, owner: int | None = None) -> bool:
    """Whether a list has words in it that a function's caller gives."""
    return isinstance(value, _List) and any(
        isinstance(item, _Rest) and isinstance(item.value, _Parameter) and (owner is None or item.value.owner == owner)
        for item in value.items
    )


def _imports(module: cst.Module, reader: _Reader) -> tuple[dict[str, int], int]:
    """The modules that plain imports at the top level name, and where a line behind the imports goes."""
    imports: dict[str, int] = {}
    end = -1
    at_top = True
    for line in module.body:
        first = line.body[0] if isinstance(line, cst.SimpleStatementLine) and line.body else None
        documents = isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
        if isinstance(first, cst.Import | cst.ImportFrom):
            if at_top:
                end = reader.next_line(reader.offsets.inner[line][1])
        elif not documents:
            if at_top and end < 0:
                end = reader.first_line(line)
            at_top = False
        elif at_top and end < 0 and line is module.body[-1]:
            end = reader.next_line(reader.offsets.inner[line][1])
        for small in line.body if isinstance(line, cst.SimpleStatementLine) else ():
            if not isinstance(small, cst.Import):
                continue
            for alias in small.names:
                if alias.asname is None:
                    dotted = _dotted(alias.name)
                    imports.setdefault(dotted, reader.offsets.inner[line][0])
                    imports.setdefault(dotted.partition(".")[0], reader.offsets.inner[line][0])
    return imports, end if end >= 0 else len(reader.text)


def _dotted(node: cst.CSTNode) -> str:
    """``a.b.c`` of names and attributes, else empty."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr.value}"
    return ""


_FIELDS: dict[type[cst.CSTNode], tuple[str, ...]] = {}
_LAYOUT = re.compile(
    r"^(?:_?whitespace|leading|trailing|lines|header|footer|lpar|rpar|lbr|rbr|comma|equal|semicolon)",
)


def _children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The nodes below a node but for blanks and brackets; libcst's own ``children`` rebuilds the tree."""
    kind = type(node)
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(name for name in kind.__dataclass_fields__ if not _LAYOUT.match(name))
    for name in _FIELDS[kind]:
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            yield value
        elif isinstance(value, tuple | list):
            yield from (child for child in value if isinstance(child, cst.CSTNode))


def _some(values: Iterable[_Value]) -> _Values:
    return tuple(islice(dict.fromkeys(values), _MOST_ALTERNATIVES))


def _either(left: _Values, right: _Values) -> _Values:
    """The values of a variable where two ways meet."""
    if left == right:
        return left
    merged = list(left)
    for value in right:
        if value in merged:
            continue
        for index, other in enumerate(merged):
            joined = _joined(other, value)
            if joined is not None:
                merged[index] = joined
                break
        else:
            merged.append(value)
    return _some(merged)


def _joined(left: _Value, right: _Value) -> _List | None:
    """One list with the words of both, where both run the same program."""
    if not isinstance(left, _List) or not isinstance(right, _List):
        return None
    same = 0
    for one, other in zip(left.items, right.items, strict=False):
        if one != other:
            break
        same += 1
    if same >= _SAME_PROGRAM - 1 and same in (len(left.items), len(right.items)):
        return max(left, right, key=lambda value: len(value.items))
    if same < _SAME_PROGRAM:
        return None
    rest = tuple(item for item in right.items[same:] if item not in left.items)
    return _List(left.items + rest)


def _merge(one: _State, other: _State) -> _State:
    """The state where two ways meet."""
    if one.dead:
        return other
    if other.dead or one is other:
        return one
    env = dict(one.env)
    for name, values in other.env.items():
        before = env.get(name)
        if before is None:
            env[name] = values
        elif before is not values:
            env[name] = _flagged(before, one, values, other) or _either(before, values)
    return _State(env, one.failed & other.failed)


def _flagged(left: _Values, one: _State, right: _Values, other: _State) -> _Values:
    """What a flag tells that is set on the one way and not on the other: which calls failed."""
    match left, right:
        case ((_Flag(first),), (_Flag(second),)) if first is not second and one.failed != other.failed:
            calls, failing = (one.failed - other.failed, first)
            if not calls:
                calls, failing = (other.failed - one.failed, second)
            return (_Outcome(calls, "failed" if failing else "ok"),)
    return ()


def _filled(values: _Values, bound: _Bound) -> _Values:
    """The values with a caller's arguments in the place of parameters."""
    if not any(isinstance(value, _List | _Parameter) for value in values):
        return values
    result: list[_Value] = []
    for value in values:
        if isinstance(value, _Parameter):
            result += bound.get((value.owner, value.name), (value,))
        elif isinstance(value, _List):
            result += _spliced([_filled_item(item, bound) for item in value.items])
        else:
            result.append(value)
    return _some(result)


def _filled_item(item: _Item, bound: _Bound) -> list[tuple[_Item, ...]]:
    if isinstance(item, _Parameter):
        return [(_word(value, item.start, item.end),) for value in bound.get((item.owner, item.name), (item,))]
    if isinstance(item, _Rest) and isinstance(item.value, _Parameter):
        key = (item.value.owner, item.value.name)
        return [_spread(value, item.value.start, item.value.end) for value in bound.get(key, (item.value,))]
    return [(item,)]


def _spliced(parts: Sequence[Sequence[tuple[_Item, ...]]]) -> Iterator[_List]:
    """Every list that the alternatives of its parts make."""
    for chosen in islice(product(*parts), _MOST_ALTERNATIVES):
        yield _List(tuple(item for part in chosen for item in part))


def _word(value: _Value, start: int, end: int, room: bool = False) -> _Item:
    """A value as one element of a list."""
    if isinstance(value, _Text):
        return _Text(value.text, start, end, value.variable, room)
    if isinstance(value, _Parameter):
        return _Parameter(value.owner, value.name, start, end)
    return value if isinstance(value, _List) else _Text(None, start, end)


def _single(value: _Value, start: int, end: int) -> tuple[_Item, ...]:
    return (_word(value, start, end),)


def _spread(value: _Value, start: int, end: int) -> tuple[_Item, ...]:
    """A value as the elements that ``*`` or ``+`` put into a list."""
    if isinstance(value, _List):
        return value.items
    if isinstance(value, _Parameter):
        return (_Rest(_Parameter(value.owner, value.name, start, end)),)
    return (_Rest(_Text(None, start, end, value.variable if isinstance(value, _Text) else "")),)


def _words(value: _List) -> tuple[Word, ...]:
    words = []
    for item in value.items:
        plain = item.value if isinstance(item, _Rest) else item
        if isinstance(plain, _Text):
            text = None if isinstance(item, _Rest) else plain.text
            words.append(Word(plain.start, plain.end, text, plain.variable, plain.room))
        elif isinstance(plain, _Parameter):
            words.append(Word(plain.start, plain.end, None, plain.name, room=False))
    return tuple(words)


def _parts(value: _Value) -> tuple[str | None, ...]:
    """The parts of a string's value, None for each that is not known."""
    if not isinstance(value, _Text):
        return (None,)
    return (value.text,) if value.text is not None else value.parts or (None,)


def _text_of(parts: Sequence[str | None], span: tuple[int, int]) -> _Text:
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):
        return _Text("".join(known), *span)
    return _Text(None, *span, parts=tuple(parts) if known else ())


class _Reader:
    """Runs the script in the abstract, every function once, and notes what it meets."""

    def __init__(self, text: str, offsets: _Offsets) -> None:
        self.text = text
        self.offsets = offsets
        self.statements: list[tuple[int, int, int, int, str]] = []
        self.commands: list[Command] = []
        self.names: list[Name] = []
        self.functions: list[_Function] = []
        self.bodies = 0
        self.statement = -1
        self.function: _Function | None = None
        self.cls: _Class | None = None
        self.module = self.scope = _State({})
        self.calls: list[tuple[int, ...]] = []  # the commands that each call gave
        self.ends: list[list[_State]] = []  # of the loops around: states at break, states at continue
        self.expressions: dict[type[cst.CSTNode], Callable[..., _Values]] = {
            cst.Name: self.eval_name,
            cst.SimpleString: self.eval_string,
            cst.ConcatenatedString: self.eval_string,
            cst.FormattedString: self.eval_string,
            cst.List: self.eval_list,
            cst.Tuple: self.eval_list,
            cst.Attribute: self.eval_attribute,
            cst.Call: self.eval_call,
            cst.BinaryOperation: self.eval_binary,
            cst.BooleanOperation: self.eval_boolean,
            cst.UnaryOperation: self.eval_unary,
            cst.Comparison: self.eval_comparison,
            cst.IfExp: self.eval_conditional,
            cst.NamedExpr: self.eval_walrus,
            cst.Subscript: self.eval_subscript,
            cst.Lambda: self.eval_lambda,
            cst.ListComp: self.eval_comprehension,
            cst.GeneratorExp: self.eval_comprehension,
            cst.Await: lambda node, state: self.eval(node.expression, state),
        }
        self.compounds: dict[type[cst.CSTNode], Callable[..., None]] = {
            cst.If: self.exec_if,
            cst.While: self.exec_while,
            cst.For: self.exec_for,
            cst.Try: self.exec_try,
            cst.TryStar: self.exec_try,
            cst.With: self.exec_with,
            cst.Match: self.exec_match,
            cst.FunctionDef: self.exec_def,
            cst.ClassDef: self.exec_class,
        }

    def next_line(self, offset: int) -> int:
        found = re.compile(r"\r\n?|\n").search(self.text, offset)
        return found.end() if found else len(self.text)

    def first_line(self, line: cst.CSTNode) -> int:
        """Where the line of a statement at the top level begins, decorators included."""
        start = self.offsets.inner[line][0]
        if isinstance(line, cst.FunctionDef | cst.ClassDef) and line.decorators:
            start = self.text.rindex("@", 0, self.offsets.outer[line.decorators[0].decorator][0])
        elif isinstance(line, cst.FunctionDef) and line.asynchronous:
            start = min(start, self.offsets.inner[line.asynchronous][0])
        return start

    def read_module(self, module: cst.Module) -> None:
        self.exec_body(module.body, self.module, -1)
        self.read_functions(self.module)
        self.sort_statements()

    def sort_statements(self) -> None:
        """Functions are read when they are first called: put the statements back into the file's order."""
        order = sorted(range(len(self.statements)), key=lambda index: self.statements[index][0])
        place = {old: new for new, old in enumerate(order)} | {-1: -1}
        self.statements = [
            (start, end, body, place[parent], defines)
            for start, end, body, parent, defines in (self.statements[index] for index in order)
        ]
        self.commands = [replace(command, statement=place[command.statement]) for command in self.commands]

    # Statements.

    def exec_body(self, body: Sequence[cst.CSTNode], state: _State, parent: int) -> None:
        number = self.bodies
        self.bodies += 1
        for line in body:
            defines = line.name.value if isinstance(line, cst.FunctionDef) else ""
            start = self.first_line(line)
            self.statement = len(self.statements)
            self.statements.append((start, self.offsets.inner[line][1], number, parent, defines))
            compound = self.compounds.get(type(line))
            if compound:
                compound(line, state)
            else:
                for small in getattr(line, "body", ()):
                    self.exec_small(small, state)
            self.statement = parent

    def exec_suite(self, suite: cst.BaseSuite, state: _State) -> None:
        parent = self.statement
        if isinstance(suite, cst.IndentedBlock):
            self.exec_body(suite.body, state, parent)
        elif isinstance(suite, cst.SimpleStatementSuite) and suite.body:
            start = self.offsets.inner[suite.body[0]][0]
            self.statements.append((start, self.offsets.inner[suite.body[-1]][1], self.bodies, parent, ""))
            self.bodies += 1
            self.statement = len(self.statements) - 1
            for small in suite.body:
                self.exec_small(small, state)
        self.statement = parent

    def exec_small(self, node: cst.CSTNode, state: _State) -> None:
        match node:
            case cst.Assign():
                values = self.eval(node.value, state)
                for target in node.targets:
                    self.assign(target.target, values, state, node.value)
            case cst.AnnAssign():
                self.eval(node.annotation.annotation, state)
                if node.value is not None:
                    self.assign(node.target, self.eval(node.value, state), state, node.value)
            case cst.AugAssign():
                values = self.eval(node.value, state)
                before = self.eval(node.target, state)
                if isinstance(node.operator, cst.AddAssign):
                    self.grow(node.target, self.added(before, values, self.offsets.outer[node.value]), state)
                    self.note_assigned(node.target)
                else:
                    self.assign(node.target, (), state)
            case cst.Import() | cst.ImportFrom():
                self.exec_import(node, state)
            case cst.Return():
                values = self.eval(node.value, state) if node.value is not None else ()
                if self.function and not state.dead:
                    self.function.returns = _either(self.function.returns, values)
                state.dead = True
            case cst.Break() | cst.Continue():
                if self.ends:
                    self.ends[-2 if isinstance(node, cst.Break) else -1].append(state.copy())
                state.dead = True
            case cst.Global():
                if self.function:
                    self.function.globals.update(item.name.value for item in node.names)
            case cst.Raise():
                self.eval_children(node, state)
                state.dead = True
            case _:
                self.eval_children(node, state)

    def exec_import(self, node: cst.Import | cst.ImportFrom, state: _State) -> None:
        module = ""
        if isinstance(node, cst.ImportFrom):
            module = _dotted(node.module) + "." if node.module else "."
        if isinstance(node.names, cst.ImportStar):
            for dotted in [*_RUNNERS, *_EXITS, *_ENVIRONMENT, "os.environ", "shlex.split"]:
                if dotted.startswith(module) and "." not in dotted.removeprefix(module):
                    state.env[dotted.removeprefix(module)] = (_Path(dotted),)
            return
        for alias in node.names:
            dotted = module + _dotted(alias.name)
            if alias.asname is not None:
                state.env[_dotted(alias.asname.name)] = (_Path(dotted),)
            elif module:
                state.env[_dotted(alias.name)] = (_Path(dotted),)
            else:
                root = dotted.partition(".")[0]
                state.env[root] = (_Path(root),)

    def exec_if(self, node: cst.If, state: _State) -> None:
        when, otherwise = self.test(node.test, state)
        first = state.copy(when)
        self.exec_suite(node.body, first)
        second = state.copy(otherwise)
        if isinstance(node.orelse, cst.If):
            self.exec_if(node.orelse, second)
        elif node.orelse is not None:
            self.exec_suite(node.orelse.body, second)
        state.take(_merge(first, second))

    def exec_loop(
        self,
        node: cst.While | cst.For,
        state: _State,
        body: _State,
        otherwise: frozenset[int],
        endless: bool,
    ) -> None:
        self.ends += [[], []]
        self.exec_suite(node.body, body)
        continued, broken = self.ends.pop(), self.ends.pop()
        for other in continued:
            body = _merge(body, other)
        # The body counts as run at least once: what failed in its last turn has failed behind the loop.
        after = state.copy(otherwise)
        if not body.dead:
            after = _merge(after, body)
            after.failed = body.failed | otherwise
        after.dead = after.dead or endless
        if node.orelse is not None:
            self.exec_suite(node.orelse.body, after)
        for other in broken:
            after = _merge(after, other)
        state.take(after)

    def exec_while(self, node: cst.While, state: _State) -> None:
        when, otherwise = self.test(node.test, state)
        endless = isinstance(node.test, cst.Name | cst.Integer) and node.test.value in ("True", "1")
        self.exec_loop(node, state, state.copy(when), otherwise, endless)

    def exec_for(self, node: cst.For, state: _State) -> None:
        values = self.eval(node.iter, state)
        body = state.copy()
        items = [item for value in values if isinstance(value, _List) for item in value.items]
        self.assign(node.target, _some(item for item in items if not isinstance(item, _Rest)), body)
        self.exec_loop(node, state, body, frozenset(), endless=False)

    def exec_try(self, node: cst.Try | cst.TryStar, state: _State) -> None:
        first_call = len(self.calls)
        body = state.copy()
        self.exec_suite(node.body, body)
        failed = frozenset(range(first_call, len(self.calls)))
        ways = []
        for handler in node.handlers:
            way = _merge(state.copy(), _State(body.env)).copy()
            way.failed = state.failed | failed
            if handler.type is not None:
                self.eval(handler.type, way)
            if handler.name is not None:
                self.assign(handler.name.name, (), way)
            self.exec_suite(handler.body, way)
            ways.append(way)
        if node.orelse is not None:
            self.exec_suite(node.orelse.body, body)
        for way in ways:
            body = _merge(body, way)
        if node.finalbody is not None:
            dead, body.dead = body.dead, False
            self.exec_suite(node.finalbody.body, body)
            body.dead = body.dead or dead
        state.take(body)

    def exec_with(self, node: cst.With, state: _State) -> None:
        for item in node.items:
            values = self.eval(item.item, state)
            if item.asname is not None:
                self.assign(item.asname.name, values, state)
        first_call = len(self.calls)
        self.exec_suite(node.body, state)
        if any(_dotted(item.item.func).endswith("suppress") for item in node.items if isinstance(item.item, cst.Call)):
            # A failure ends the body early, and what comes behind is reached.
            state.dead = state.dead and first_call == len(self.calls)

    def exec_match(self, node: cst.Match, state: _State) -> None:
        self.eval(node.subject, state)
        ways = [state.copy()]
        for case in node.cases:
            way = state.copy()
            self.eval_children(case.pattern, way)
            if case.guard is not None:
                self.eval(case.guard, way)
            self.exec_suite(case.body, way)
            ways.append(way)
        for way in ways[1:]:
            ways[0] = _merge(ways[0], way)
        state.take(ways[0])

    def exec_def(self, node: cst.FunctionDef, state: _State) -> None:
        for decorator in node.decorators:
            self.eval(decorator.decorator, state)
        function = self.define(node, state)
        if self.cls:
            self.cls.members[node.name.value] = (function,)
        else:
            state.env[node.name.value] = (function,)

    def define(self, node: cst.FunctionDef | cst.Lambda, state: _State) -> _Function:
        function = _Function(len(self.functions), node, self.statement, self.scope, self.cls)
        for parameter in _parameters(node.params):
            if parameter.annotation is not None:
                self.eval(parameter.annotation.annotation, state)
            if parameter.default is not None:
                function.defaults[parameter.name.value] = self.eval(parameter.default, state)
        if isinstance(node, cst.FunctionDef) and node.returns is not None:
            self.eval(node.returns.annotation, state)
        self.functions.append(function)
        return function

    def exec_class(self, node: cst.ClassDef, state: _State) -> None:
        for decorator in node.decorators:
            self.eval(decorator.decorator, state)
        bases = [value for base in node.bases for value in self.eval(base.value, state)]
        cls = _Class(tuple(base.cls for base in bases if isinstance(base, _Object)))
        state.env[node.name.value] = (_Object(cls),)
        around, self.cls = self.cls, cls
        body = state.copy()
        self.exec_suite(node.body, body)
        self.cls = around
        cls.members |= {name: value for name, value in body.env.items() if state.env.get(name) is not value}

    # Functions.

    def read_functions(self, state: _State) -> None:
        """Read the functions of a scope that no call has reached."""
        for function in self.functions:
            if function.scope is self.scope:
                self.read_function(function, state)

    def read_function(self, function: _Function, state: _State) -> None:
        if function.read:
            return
        function.read = True
        around = (self.statement, self.function, self.ends, self.scope, self.cls)
        inner = _State(dict((state if self.scope is function.scope else function.scope).env))
        self.statement, self.function, self.ends, self.scope, self.cls = function.statement, function, [], inner, None
        self.bind_parameters(function, inner)
        if isinstance(function.node, cst.Lambda):
            function.returns = self.eval(function.node.body, inner)
        else:
            self.exec_suite(function.node.body, inner)
        self.read_functions(inner)
        function.grown = {name: inner.env[name] for name in function.changed & {*_parameter_names(function)}}
        self.statement, self.function, self.ends, self.scope, self.cls = around

    def bind_parameters(self, function: _Function, inner: _State) -> None:
        params = function.node.params
        for parameter in _parameters(params):
            name = parameter.name.value
            start, end = self.offsets.inner[parameter.name]
            self.names.append(Name(start, name, assigned=True))
            value = _Parameter(function.number, name, start, end)
            inner.env[name] = (_List((_Rest(value),)) if parameter is params.star_arg else value,)
        if function.cls and (positional := [*params.posonly_params, *params.params]):
            inner.env[positional[0].name.value] = (_Object(function.cls),)

    def bound(self, function: _Function, arguments: _Arguments, method: bool) -> dict[tuple[int, str], _Values]:
        """What a call gives to each parameter."""
        params = function.node.params
        names = [parameter.name.value for parameter in (*params.posonly_params, *params.params)][method:]
        given: dict[str, _Values] = dict(function.defaults)
        rest: list[Sequence[tuple[_Item, ...]]] = []
        for index, (argument, values) in enumerate(arguments):
            span = self.offsets.outer[argument.value]
            if argument.keyword is not None:
                given[argument.keyword.value] = values
            elif argument.star == "*":
                rest.append([_spread(value, *span) for value in values])
            elif argument.star == "" and index < len(names) and not rest:
                given[names[index]] = values
            elif argument.star == "":
                rest.append([_single(value, *span) for value in values])
        if isinstance(params.star_arg, cst.Param):
            # In the body the parameter is a list of the rest, so the list's items are what stands for it.
            given[params.star_arg.name.value] = _some(_spliced(rest))
        return {(function.number, name): values for name, values in given.items()}

    # Assignments.

    def assign(self, target: cst.CSTNode, values: _Values, state: _State, source: cst.CSTNode | None = None) -> None:
        match target:
            case cst.Name():
                self.names.append(Name(self.offsets.inner[target][0], target.value, True, _only_text(values)))
                self.store(target.value, values, state)
                if self.function:
                    self.function.rebound.add(target.value)
            case cst.Attribute():
                self.eval(target.value, state)
                self.store_attribute(target, values, state)
            case cst.Tuple() | cst.List():
                lists = [value for value in values if isinstance(value, _List)]
                paired = len(lists) == 1 and len(lists[0].items) == len(target.elements)
                for index, element in enumerate(target.elements):
                    item = lists[0].items[index] if paired else None
                    self.assign(element.value, () if item is None or isinstance(item, _Rest) else (item,), state)
            case cst.StarredElement():
                self.assign(target.value, (), state)
            case cst.Subscript():
                self.assign_subscript(target, values, state, source)
            case _:
                self.eval_children(target, state)

    def assign_subscript(
        self,
        target: cst.Subscript,
        values: _Values,
        state: _State,
        source: cst.CSTNode | None,
    ) -> None:
        lists = self.eval(target.value, state)
        index = target.slice[0].slice if len(target.slice) == 1 else None
        if self.path(target.value, state) == "os.environ" and isinstance(index, cst.Index):
            self.environment(index.value, Name(0, "", True, _only_text(values)))
            return
        self.eval_children(target.slice[0], state)
        if source is None:
            return
        span = self.offsets.outer[source]
        if isinstance(index, cst.Index) and isinstance(index.value, cst.Integer):
            at = int(index.value.value, 0)
            new = [_single(value, *span) for value in values or (_Text(None, *span),)]
            self.grow(target.value, self.inserted(lists, at, new, replaced=1), state)
        elif isinstance(index, cst.Slice) and isinstance(index.lower, cst.Integer):
            new = [_spread(value, *span) for value in values or (_Text(None, *span),)]
            self.grow(target.value, self.inserted(lists, int(index.lower.value, 0), new), state)

    def store(self, name: str, values: _Values, state: _State) -> None:
        state.env[name] = values
        if self.function and name in self.function.globals:
            self.module.env[name] = values

    def store_attribute(self, target: cst.Attribute, values: _Values, state: _State) -> None:
        for value in self.lookup(target.value, state):
            if isinstance(value, _Object):
                value.cls.members[target.attr.value] = values
        if dotted := _dotted(target):
            state.env[dotted] = values

    def grow(self, target: cst.CSTNode, values: _Values, state: _State) -> None:
        """Change a list in place: whoever handed it in has it changed too."""
        if isinstance(target, cst.Name):
            self.store(target.value, values, state)
            if self.function and target.value not in self.function.rebound:
                self.function.changed.add(target.value)
        elif isinstance(target, cst.Attribute):
            self.store_attribute(target, values, state)

    def note_assigned(self, target: cst.CSTNode) -> None:
        if isinstance(target, cst.Name):
            self.names.append(Name(self.offsets.inner[target][0], target.value, assigned=True))

    def inserted(
        self,
        lists: _Values,
        at: int,
        new: Sequence[tuple[_Item, ...]],
        replaced: int = 0,
    ) -> _Values:
        """The lists with new items at a place, where it is known what stands before it."""
        result: list[_Value] = []
        for value in lists:
            if isinstance(value, _List) and not any(isinstance(item, _Rest) for item in value.items[: at + replaced]):
                result += _spliced([[value.items[:at]], new, [value.items[at + replaced :]]])
            else:
                result.append(value)
        return _some(result)

    def added(self, left: _Values, right: _Values, span: tuple[int, int]) -> _Values:
        """``left + right``, of lists or of strings."""
        if not any(isinstance(value, _List) for value in (*left, *right)):
            return self.joined_text(left, right, span)
        before = [_spread(value, *span) for value in left] or [()]
        return _some(_spliced([before, [_spread(value, *span) for value in right] or [(_Rest(_Text(None, *span)),)]]))

    def joined_text(self, left: _Values, right: _Values, span: tuple[int, int]) -> _Values:
        if any(isinstance(value, _Parameter) for value in left) and not any(
            isinstance(value, _Text) and value.text is not None for value in right
        ):
            # A parameter that grows by what is unknown may well be a list.
            return _some(_spliced([[_spread(value, *span) for value in left], [(_Rest(_Text(None, *span)),)]]))
        texts = [_text_of([*_parts(one), *_parts(other)], span) for one, other in product(left, right)]
        return _some(texts) or (_Text(None, *span),)

    # Expressions.

    def eval(self, node: cst.CSTNode, state: _State) -> _Values:
        """The values of an expression; none where nothing is known."""
        evaluate = self.expressions.get(type(node))
        if evaluate:
            return evaluate(node, state)
        self.eval_children(node, state)
        return (_Text(None, *self.offsets.outer[node]),) if node in self.offsets.outer else ()

    def eval_children(self, node: cst.CSTNode, state: _State) -> None:
        for child in _children(node):
            if type(child) in self.expressions:
                self.eval(child, state)
            else:
                self.eval_children(child, state)

    def test(self, node: cst.CSTNode, state: _State) -> tuple[frozenset[int], frozenset[int]]:
        """The calls that failed if a condition holds, and if it does not."""
        none: frozenset[int] = frozenset()
        if isinstance(node, cst.BooleanOperation):
            left = self.test(node.left, state)
            both = isinstance(node.operator, cst.And)
            inner = state.copy(left[0] if both else left[1])
            right = self.test(node.right, inner)
            return (left[0] | right[0], none) if both else (none, left[1] | right[1])
        if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Not):
            when, otherwise = self.test(node.expression, state)
            return otherwise, when
        values = self.eval(node, state)
        for value in values:
            if isinstance(value, _Outcome):
                return (value.calls, none) if value.kind in ("code", "failed") else (none, value.calls)
        return none, none

    def lookup(self, node: cst.CSTNode, state: _State) -> _Values:
        """The values of a name or an attribute."""
        if isinstance(node, cst.Name):
            if node.value not in state.env:
                return (_Path(node.value),)
            span = self.offsets.outer[node]
            return tuple(
                replace(value, start=span[0], end=span[1], variable=value.variable or node.value, room=False)
                if isinstance(value, _Text)
                else value
                for value in state.env[node.value]
            ) or (_Text(None, *span, node.value),)
        if not isinstance(node, cst.Attribute):
            return ()
        dotted = _dotted(node)
        if dotted in state.env:
            return state.env[dotted]
        found: list[_Value] = []
        for value in self.lookup(node.value, state):
            if isinstance(value, _Path):
                found.append(_Path(f"{value.dotted}.{node.attr.value}"))
            elif isinstance(value, _Object):
                found += value.cls.find(node.attr.value)
            elif isinstance(value, _Outcome) and value.kind == "result" and node.attr.value == "returncode":
                found.append(_Outcome(value.calls, "code"))
        return _some(found) or (_Text(None, *self.offsets.outer[node], dotted),)

    def path(self, node: cst.CSTNode, state: _State) -> str:
        """The dotted name of something from outside of the script, through its import."""
        values = self.lookup(node, state)
        return values[0].dotted if len(values) == 1 and isinstance(values[0], _Path) else ""

    def eval_name(self, node: cst.Name, state: _State) -> _Values:
        if node.value in ("True", "False"):
            return (_Flag(node.value == "True"),)
        self.names.append(Name(self.offsets.inner[node][0], node.value))
        return self.lookup(node, state)

    def eval_attribute(self, node: cst.Attribute, state: _State) -> _Values:
        below = self.eval(node.value, state)
        if isinstance(node.value, cst.Name | cst.Attribute):
            return self.lookup(node, state)
        codes = [value for value in below if isinstance(value, _Outcome) and value.kind == "result"]
        if codes and node.attr.value == "returncode":
            return (_Outcome(codes[0].calls, "code"),)
        return (_Text(None, *self.offsets.outer[node], f".{node.attr.value}"),)

    def eval_string(self, node: cst.CSTNode, state: _State) -> _Values:
        return (_text_of(self.string(node, state), self.offsets.outer[node]),)

    def string(self, node: cst.CSTNode, state: _State) -> list[str | None]:
        """The parts of a string, None for each that is not known."""
        match node:
            case cst.SimpleString():
                try:
                    value = node.evaluated_value
                except (SyntaxError, ValueError):
                    return [None]
                return [None if isinstance(value, bytes) or "\ufffd" in value else value]
            case cst.ConcatenatedString():
                return [*self.string(node.left, state), *self.string(node.right, state)]
            case cst.FormattedString():
                parts: list[str | None] = []
                for part in node.parts:
                    if isinstance(part, cst.FormattedStringText):
                        raw = "r" in node.prefix
                        parts.append(part.value if raw or "\\" not in part.value else None)
                    elif isinstance(part, cst.FormattedStringExpression):
                        text = _only_text(self.eval(part.expression, state))
                        plain = part.conversion is None and not part.format_spec and part.equal is None
                        parts.append(text if plain else None)
                        for spec in part.format_spec or ():
                            self.eval_children(spec, state)
                return parts
        self.eval_children(node, state)
        return [None]

    def eval_list(self, node: cst.List | cst.Tuple, state: _State) -> _Values:
        parts: list[Sequence[tuple[_Item, ...]]] = []
        for element in node.elements:
            values = self.eval(element.value, state)
            span = self.offsets.outer[element.value]
            if isinstance(element, cst.StarredElement):
                parts.append([_spread(value, *span) for value in values] or [(_Rest(_Text(None, *span)),)])
            else:
                parts.append([(_word(value, *span, room=True),) for value in values] or [(_Text(None, *span),)])
        return _some(_spliced(parts))

    def eval_binary(self, node: cst.BinaryOperation, state: _State) -> _Values:
        left, right = self.eval(node.left, state), self.eval(node.right, state)
        if isinstance(node.operator, cst.Add):
            lists = any(isinstance(value, _List) for value in (*left, *right))
            if lists:
                before = [_spread(value, *self.offsets.outer[node.left]) for value in left]
                behind = [_spread(value, *self.offsets.outer[node.right]) for value in right]
                return _some(_spliced([before, behind]))
            return self.joined_text(left, right, self.offsets.outer[node])
        return (_Text(None, *self.offsets.outer[node]),)

    def eval_boolean(self, node: cst.BooleanOperation, state: _State) -> _Values:
        values = self.eval(node.left, state)
        when, otherwise = (frozenset[int](), frozenset[int]())
        for value in values:
            if isinstance(value, _Outcome):
                fails = value.kind in ("code", "failed")
                when, otherwise = (value.calls, otherwise) if fails else (when, value.calls)
        inner = state.copy(when if isinstance(node.operator, cst.And) else otherwise)
        right = self.eval(node.right, inner)
        return _either(values, right)

    def eval_unary(self, node: cst.UnaryOperation, state: _State) -> _Values:
        values = self.eval(node.expression, state)
        if not isinstance(node.operator, cst.Not):
            return (_Text(None, *self.offsets.outer[node]),)
        kinds = {"code": "ok", "failed": "ok", "ok": "failed", "result": "failed"}
        return _some(
            _Outcome(value.calls, kinds[value.kind]) if isinstance(value, _Outcome) else _Flag(not value.value)
            for value in values
            if isinstance(value, _Outcome | _Flag)
        )

    def eval_comparison(self, node: cst.Comparison, state: _State) -> _Values:
        left = self.eval(node.left, state)
        for comparison in node.comparisons:
            right = self.eval(comparison.comparator, state)
            if isinstance(comparison.operator, cst.In | cst.NotIn):
                if self.path(comparison.comparator, state) == "os.environ":
                    self.environment(node.left, Name(0, ""))
            elif len(node.comparisons) == 1:
                for outcome, value in ((left, comparison.comparator), (right, node.left)):
                    compared = self.compared(outcome, comparison.operator, value)
                    if compared:
                        return compared
        return ()

    def compared(self, values: _Values, operator: cst.BaseCompOp, other: cst.BaseExpression) -> _Values:
        """What a comparison of a call's outcome with 0, None or a truth value tells."""
        outcomes = [value for value in values if isinstance(value, _Outcome)]
        if not outcomes or not isinstance(other, cst.Integer | cst.Name):
            return ()
        good = {"0": "0", "True": "True", "None": "", "False": ""}.get(other.value)
        if good is None:
            return ()
        equal = isinstance(operator, cst.Equal | cst.Is)
        # The value that stands for success is 0 of a code, and True of anything else.
        if outcomes[0].kind == "failed":
            good = "False" if other.value == "False" else ""
        return (_Outcome(outcomes[0].calls, "ok" if equal == bool(good) else "failed"),)

    def eval_conditional(self, node: cst.IfExp, state: _State) -> _Values:
        when, otherwise = self.test(node.test, state)
        return _either(self.eval(node.body, state.copy(when)), self.eval(node.orelse, state.copy(otherwise)))

    def eval_walrus(self, node: cst.NamedExpr, state: _State) -> _Values:
        values = self.eval(node.value, state)
        self.assign(node.target, values, state, node.value)
        return values

    def eval_subscript(self, node: cst.Subscript, state: _State) -> _Values:
        values = self.eval(node.value, state)
        span = self.offsets.outer[node]
        index = node.slice[0].slice if len(node.slice) == 1 else None
        if isinstance(index, cst.Index) and self.path(node.value, state) == "os.environ":
            return (_Text(None, *span, self.environment(index.value, Name(0, ""))),)
        for element in node.slice:
            self.eval_children(element, state)
        if isinstance(index, cst.Index) and isinstance(index.value, cst.Integer):
            at = int(index.value.value, 0)
            items = [value.items[at] for value in values if isinstance(value, _List) and at < len(value.items)]
            return _some(item for item in items if not isinstance(item, _Rest)) or (_Text(None, *span),)
        if isinstance(index, cst.Slice) and index.lower is None and index.upper is None:
            return values
        return (_Text(None, *span),)

    def eval_lambda(self, node: cst.Lambda, state: _State) -> _Values:
        function = self.define(node, state)
        self.read_function(function, state)
        return (function,)

    def eval_comprehension(self, node: cst.ListComp | cst.GeneratorExp, state: _State) -> _Values:
        inner = state.copy()
        values = self.eval(node.for_in.iter, inner)
        self.assign(node.for_in.target, (), inner)
        self.eval_children(node.for_in, _State({}))
        self.eval(node.elt, inner)
        # What only leaves out or converts words is still the list.
        same = isinstance(node.for_in.target, cst.Name) and node.for_in.inner_for_in is None
        elements = node.elt.args[0].value if isinstance(node.elt, cst.Call) and len(node.elt.args) == 1 else node.elt
        if same and isinstance(elements, cst.Name) and elements.value == _dotted(node.for_in.target):
            return _some(value for value in values if isinstance(value, _List | _Parameter))
        return (_List((_Rest(_Text(None, *self.offsets.outer[node])),)),)

    def environment(self, node: cst.CSTNode, name: Name) -> str:
        """Note a variable of the environment; its name."""
        (variable,) = self.string(node, _State({})) if isinstance(node, cst.SimpleString) else (None,)
        if variable is None:
            return ""
        self.names.append(Name(self.offsets.inner[node][0], variable, name.assigned, name.value))
        return variable

    # Calls.

    def eval_call(self, node: cst.Call, state: _State) -> _Values:
        callees = self.eval(node.func, state)
        arguments: _Arguments = [(argument, self.eval(argument.value, state)) for argument in node.args]
        if isinstance(node.func, cst.Attribute):
            known = self.eval_method(node.func, arguments, state, node)
            if known is not None:
                return known
        for callee in callees:
            if isinstance(callee, _Function):
                return self.call_function(node, callee, arguments, state)
            if isinstance(callee, _Object):
                for constructor in callee.cls.find("__init__"):
                    if isinstance(constructor, _Function):
                        self.read_function(constructor, state)
                return (callee,)
            if isinstance(callee, _Parameter):
                return self.run(node, arguments, state, "named", callee.name)
            if isinstance(callee, _Path):
                return self.call_path(node, callee.dotted, arguments, state)
        name = node.func.attr.value if isinstance(node.func, cst.Attribute) else _dotted(node.func)
        if _RUNS_BY_NAME.search(name):
            return self.run(node, arguments, state, "named")
        return (_Text(None, *self.offsets.outer[node]),)

    def eval_method(
        self,
        func: cst.Attribute,
        arguments: _Arguments,
        state: _State,
        node: cst.Call,
    ) -> _Values | None:
        """The methods of lists and strings; None for any other."""
        method = func.attr.value
        below = self.lookup(func.value, state) or (
            self.eval_string(func.value, state) if isinstance(func.value, cst.BaseString) else ()
        )
        lists = [value for value in below if isinstance(value, _List | _Parameter)]
        spans = [self.offsets.outer[argument.value] for argument, _ in arguments]
        given = [values for _, values in arguments]
        if lists and method in ("append", "extend") and len(given) == 1:
            of: Callable[..., tuple[_Item, ...]] = _spread if method == "extend" else _single
            new = [of(value, *spans[0]) for value in given[0]] or [(_Rest(_Text(None, *spans[0])),)]
            before = [_spread(value, *spans[0]) for value in lists]
            self.grow(func.value, _some(_spliced([before, new])), state)
            return ()
        if lists and method == "insert" and len(given) == 2:
            index = arguments[0][0].value
            if isinstance(index, cst.Integer):
                new = [_single(value, *spans[1]) for value in given[1]] or [(_Text(None, *spans[1]),)]
                self.grow(func.value, self.inserted(_some(lists), int(index.value, 0), new), state)
            return ()
        if lists and method == "copy" and not given:
            return _some(lists)
        if lists and method == "clear" and not given:
            self.grow(func.value, (_List(),), state)
            return ()
        if method == "split" and not given and below:
            return self.split(below, self.offsets.outer[node])
        outcome = [value for value in below if isinstance(value, _Outcome)]
        if outcome and method in ("wait", "poll"):
            return (_Outcome(outcome[0].calls, "code"),)
        return None

    def split(self, values: _Values, span: tuple[int, int]) -> _Values:
        """The words of a string."""
        result: list[_Value] = []
        for value in values:
            text = "".join(_UNKNOWN if part is None else part for part in _parts(value))
            try:
                words = shlex.split(text)
            except ValueError:
                words = [_UNKNOWN]
            variable = value.variable if isinstance(value, _Text) else ""
            any_number = _Rest(_Text(None, *span, variable))
            if isinstance(value, _Text) and value.default and not words:
                words = [_UNKNOWN]
            items = (
                any_number if word == _UNKNOWN else _Text(None if _UNKNOWN in word else word, *span) for word in words
            )
            result.append(_List(tuple(items)))
        return _some(result)

    def call_path(self, node: cst.Call, dotted: str, arguments: _Arguments, state: _State) -> _Values:
        """Call something from outside of the script."""
        span = self.offsets.outer[node]
        first = arguments[0][1] if arguments else ()
        if dotted in _RUNNERS:
            return self.run(node, arguments, state, _RUNNERS[dotted])
        if dotted in _ENVIRONMENT and arguments:
            variable = self.environment(arguments[0][0].value, Name(0, ""))
            defaults = [value.text for _, values in arguments[1:2] for value in values if isinstance(value, _Text)]
            return tuple(_Text(text, *span, variable, default=text is not None) for text in defaults or (None,))
        if dotted in _EXITS:
            state.dead = True
        elif dotted == "shlex.split":
            return self.split(first, span)
        elif dotted in ("list", "tuple", "filter") and arguments:
            return arguments[-1][1]
        elif dotted in ("bool", "int", "str", "os.fspath") and arguments:
            return first if dotted != "bool" else tuple(value for value in first if isinstance(value, _Outcome))
        elif dotted in ("functools.partial", "asyncio.run") and arguments:
            return first if len([argument for argument in node.args if argument.keyword is None]) == 1 else ()
        elif dotted not in _BUILTINS and _RUNS_BY_NAME.search(dotted.rpartition(".")[2]):
            return self.run(node, arguments, state, "named")
        return (_Text(None, *span),)

    def call_function(self, node: cst.Call, function: _Function, arguments: _Arguments, state: _State) -> _Values:
        """Call a function of the script: what it runs and gives back, with the arguments put in."""
        self.read_function(function, state)
        method = bool(function.cls) and isinstance(node.func, cst.Attribute)
        bound = self.bound(function, arguments, method)
        runs: list[_Value] = []
        for values, runner in function.runs:
            runners = bound.get((function.number, runner), ())
            if not runner or self.is_runner(runners):
                runs += self.through(runners, _filled(tuple(value for value in values if _is_open(value)), bound))
        if self.function and runs:
            self.function.runs.append((_some(runs), ""))
        for name, values in function.grown.items():
            for argument, given in arguments:
                if given is bound.get((function.number, name)):
                    self.grow(argument.value, _filled(values, bound), state)
        returned = _filled(function.returns, bound)
        outcomes = [value for value in returned if isinstance(value, _Outcome)]
        lists = [value for value in returned if not isinstance(value, _Outcome | _Flag)]
        if not _forwards(function):
            return _some(lists) if lists else (_Text(None, *self.offsets.outer[node]),)
        at, bar = self.list_at(function, arguments)
        outcome = self.emit(node, _some(runs), at, state, bar)
        kinds = [value.kind for value in outcomes]
        return (_Outcome(outcome, "code" if "code" in kinds else kinds[0] if kinds else "result"),)

    def list_at(self, function: _Function, arguments: _Arguments) -> tuple[int, str]:
        """The argument that holds the list which a function runs, or -1 and why there is none."""
        method = bool(function.cls)
        params = function.node.params
        names = [parameter.name.value for parameter in (*params.posonly_params, *params.params)][method:]
        for values, _ in function.runs:
            for value in values:
                for item in value.items if isinstance(value, _List) else ():
                    if isinstance(item, _Rest) and isinstance(item.value, _Parameter) and item.value.name in names:
                        at = names.index(item.value.name)
                        positional = [argument.star == "" and argument.keyword is None for argument, _ in arguments]
                        if all(positional[: at + 1]) and at < len(positional):
                            return at, ""
                        keywords = [argument.keyword.value for argument, _ in arguments if argument.keyword]
                        return -1, "keyword" if item.value.name in keywords else "words"
        return -1, "words"

    def through(self, runners: _Values, lists: _Values) -> _Values:
        """What a function that is handed over runs when it is called with these lists."""
        function = next((value for value in runners if isinstance(value, _Function)), None)
        if function is None or function.cls or not (positional := self.positional(function)):
            return lists
        opened = tuple(value for values, _ in function.runs for value in values if _is_open(value, function.number))
        return _filled(opened, {(function.number, positional[0]): lists}) or lists

    def positional(self, function: _Function) -> list[str]:
        params = function.node.params
        return [parameter.name.value for parameter in (*params.posonly_params, *params.params)]

    def is_runner(self, values: _Values) -> bool:
        """Whether a function that is handed over runs its argument."""
        for value in values:
            if isinstance(value, _Function):
                self.read_function(value, self.module)
                return _forwards(value)
            if isinstance(value, _Path):
                return value.dotted in _RUNNERS or bool(_RUNS_BY_NAME.search(value.dotted.rpartition(".")[2]))
            if isinstance(value, _Text) and _RUNS_BY_NAME.search(value.variable.rpartition(".")[2]):
                return True
        return False

    def run(
        self,
        node: cst.Call,
        arguments: _Arguments,
        state: _State,
        kind: str,
        parameter: str = "",
    ) -> _Values:
        """A call that runs a program."""
        at = _LIST_AT.get(kind, -1)
        positional = [pair for pair in arguments if pair[0].keyword is None and pair[0].star == ""]
        keywords = {argument.keyword.value: value for argument, value in arguments if argument.keyword is not None}
        bar = ""
        if kind == "words" or any(argument.star == "*" for argument, _ in arguments[: at + 1]):
            values, bar = self.spread_words(arguments), "words"
        elif len(positional) > at:
            values = positional[at][1]
        else:
            values, bar = keywords.get("args", ()), "keyword"
        if kind == "named" and any(isinstance(value, _Text) for value in values):
            values, bar = self.spread_words(positional), "words"
        lists: list[_Value] = []
        for value in values:
            if isinstance(value, _Text):
                lists += self.split((value,), (value.start, value.end)) if value.text or value.parts else ()
                bar = "shell"
            elif isinstance(value, _Parameter):
                lists.append(_List(_spread(value, value.start, value.end)))
            elif isinstance(value, _List):
                lists.append(value)
        if keywords.get("shell", (_Flag(value=False),)) != (_Flag(value=False),):
            bar = "shell"
        path = self.path(node.func, state)
        if path.startswith("asyncio.") or path == "subprocess.Popen" or kind == "third":
            bar = "background"
        elif kind == "second":
            bar = "exec"
        if self.function:
            self.function.runs.append((_some(lists), parameter))
        calls = self.emit(node, _some(lists), -1 if bar else at, state, bar)
        return (_Outcome(calls, "code" if kind in ("code", "shell") else "result"),)

    def spread_words(self, arguments: _Arguments) -> _Values:
        """The list that a call's arguments make, where each is a word."""
        parts = []
        for argument, values in arguments:
            span = self.offsets.outer[argument.value]
            spread: Callable[..., tuple[_Item, ...]] = _spread if argument.star else _single
            if argument.keyword is None:
                parts.append([spread(value, *span) for value in values])
        return _some(_spliced(parts))

    def emit(self, node: cst.Call, values: _Values, at: int, state: _State, bar: str) -> frozenset[int]:
        """Note the commands of a call; the call's number, for what depends on its outcome."""
        head, callee = (-1, -1), ""
        if at >= 0:
            start, end = self.offsets.outer[node.func]
            callee = self.text[start:end]
            behind = self.text.index("(", end) + 1
            head = (start, behind if at == 0 else self.offsets.outer[node.args[at].value][0])
        indices = []
        for value in values:
            if not isinstance(value, _List):
                continue
            words = _words(value)
            if not any(word.text is not None for word in words):
                continue
            before = frozenset(
                index
                for call in state.failed
                for index in self.calls[call]
                if self.tries(self.commands[index].words, words)
            )
            indices.append(len(self.commands))
            place = self.offsets.outer[node][0]
            self.commands.append(Command(words, head, callee, self.statement, before, place, bar))
        self.calls.append(tuple(indices))
        return frozenset([len(self.calls) - 1])

    def tries(self, first: tuple[Word, ...], then: tuple[Word, ...]) -> bool:
        """Whether one list is the other once more, options aside that were added for the retry."""
        one = [self.text[word.start : word.end] for word in first]
        other = [self.text[word.start : word.end] for word in then]
        return one[:_SAME_PROGRAM] == other[:_SAME_PROGRAM] and {*one} <= {*other}


def _parameters(params: cst.Parameters) -> Iterator[cst.Param]:
    yield from (*params.posonly_params, *params.params)
    if isinstance(params.star_arg, cst.Param):
        yield params.star_arg
    yield from params.kwonly_params
    if params.star_kwarg is not None:
        yield params.star_kwarg


def _parameter_names(function: _Function) -> Iterator[str]:
    return (parameter.name.value for parameter in _parameters(function.node.params))


def _only_text(values: _Values) -> str | None:
    return values[0].text if len(values) == 1 and isinstance(values[0], _Text) else None
