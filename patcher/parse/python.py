"""Python text to syntax, by libcst: statements, names, and the calls that run a list of words.

The lists are literals, and names that are assigned one (also by ``+=``, also in a branch). The calls are those of
``subprocess.run`` and of the script's own functions that pass on a parameter to such a call. Nothing else is followed.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

from patcher.errors import InputError
from patcher.model import Command, Name, Script, Statement, Syntax, Word
from patcher.parse import limits

_RUNNER = "subprocess.run"
# Other calls that run a program, and why a wrapper cannot stand for them.
_BARS = {
    **dict.fromkeys(["subprocess.call", "subprocess.check_call", "subprocess.check_output"], "result"),
    **dict.fromkeys(["os.system", "subprocess.getoutput", "subprocess.getstatusoutput"], "text"),
    **dict.fromkeys(["subprocess.Popen", "os.spawnv", "os.spawnve", "os.spawnvp", "os.spawnvpe"], "background"),
    **dict.fromkeys(["asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"], "background"),
    **dict.fromkeys(["os.execv", "os.execve", "os.execvp", "os.execvpe"], "exec"),
}
_DEEPEST = 5  # how many functions may pass a list on, one to the other
_STAR = -1  # the place of a parameter like *cmd
_CHANGES = frozenset({"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"})


@dataclass(slots=True)
class _Scope:
    """A function, or the module: its parameters, what its names are assigned, None if unknown, and added by `+=`."""

    function: str = ""
    parameters: tuple[str, ...] = ()
    star: str = ""
    lists: dict[str, list[cst.BaseExpression | None]] = field(default_factory=dict)
    more: dict[str, list[cst.BaseExpression]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Call:
    node: cst.Call
    name: str
    scope: _Scope
    statement: int


class _Reader:
    """Walks a module once, and notes statements, names, assigned lists and calls."""

    def __init__(self, script: Script, spans: Mapping[cst.CSTNode, tuple[int, int]]) -> None:
        self.script, self.text, self.spans = script, script.text, spans
        self.statements: list[Statement] = []
        self.names: list[Name] = []
        self.calls: list[_Call] = []
        self.bound: Counter[str] = Counter()  # how often a name is given a value, but for parameters and plain imports
        self.changed: set[str] = set()  # names whose list is changed in a way that is not followed
        self._scope = _Scope()
        self._statement = -1
        self._bodies = 0

    def body(self, lines: Sequence[cst.CSTNode]) -> None:
        """A list of statements, inside the statement that is read."""
        parent, number = self._statement, self._bodies
        self._bodies += 1
        for line in lines:
            defines = line.name.value if isinstance(line, cst.FunctionDef) else ""
            self._statement = len(self.statements)
            self.statements.append(Statement(self.first(line), self.spans[line][1], number, parent, defines))
            self.visit(line)
            self._statement = parent

    def first(self, line: cst.CSTNode) -> int:
        """Where a statement begins, decorators included."""
        if isinstance(line, cst.FunctionDef | cst.ClassDef) and line.decorators:
            return self.text.rindex("@", 0, self.spans[line.decorators[0].decorator][0])
        return self.spans[line][0]

    def visit(self, node: cst.CSTNode) -> None:
        match node:
            case cst.IndentedBlock() | cst.SimpleStatementSuite():
                self.body(node.body)
            case cst.FunctionDef():
                self._function(node)
            case cst.Name():
                self._name(node)
            case cst.Attribute() | cst.Arg():
                self.visit(node.value)
            case cst.Import():
                pass
            case cst.ImportFrom():
                names = [] if isinstance(node.names, cst.ImportStar) else node.names
                self.bound.update(_dotted(alias.asname.name if alias.asname else alias.name) for alias in names)
            case cst.Assign():
                self.visit(node.value)
                for target in node.targets:
                    self._assign(target.target, node.value)
            case cst.AnnAssign() | cst.NamedExpr():
                self._visit_all(node, but=node.target)
                self._assign(node.target, node.value)
            case cst.AugAssign():
                self._visit_all(node)
                self._grow(node)
            case cst.For() | cst.CompFor():
                self._assign(node.target, None)
                self._visit_all(node, but=node.target)
            case cst.AsName():
                self._assign(node.name, None)
            case cst.Param():
                self._assign(node.name, None)
                self.bound[node.name.value] -= 1
                self._visit_all(node, but=node.name)
            case cst.ClassDef():
                self.bound[node.name.value] += 1
                self._visit_all(node)
            case cst.Del():
                self._assign(node.target, None)
            case cst.Global() | cst.Nonlocal():
                for item in node.names:
                    self.changed.add(_dotted(item.name))
            case cst.Call():
                self._call(node)
            case cst.SimpleString():
                self._string(node)
            case _:
                self._visit_all(node)

    def _visit_all(self, node: cst.CSTNode, but: cst.CSTNode | None = None) -> None:
        for child in node.children:
            if child is not but:
                self.visit(child)

    def _function(self, node: cst.FunctionDef) -> None:
        params, outer = node.params, self._scope
        names = tuple(param.name.value for param in (*params.posonly_params, *params.params))
        star = params.star_arg.name.value if isinstance(params.star_arg, cst.Param) else ""
        self.bound[node.name.value] += 1
        outer.lists.setdefault(node.name.value, []).append(None)
        self._scope = _Scope(node.name.value, names, star)
        self._visit_all(node, but=node.name)
        self._scope = outer

    def _call(self, node: cst.Call) -> None:
        name = _dotted(node.func)
        if isinstance(node.func, cst.Attribute) and node.func.attr.value in _CHANGES:
            self.changed.add(_dotted(node.func.value))
        self.calls.append(_Call(node, name, self._scope, self._statement))
        self._visit_all(node)

    def _name(self, node: cst.Name, assigned: bool = False, value: str | None = None) -> None:
        start, end = self.spans[node]
        if self.text[start:end] != node.value:
            raise InputError("libcst does not give this file's text back", where=self.script.where(start))
        self.names.append(Name(start, node.value, assigned, value))

    def _string(self, node: cst.SimpleString) -> None:
        """Note a string that has the form of a variable of the environment as its name."""
        text = _value(node) or ""
        if text.isupper() and text.isidentifier():
            self.names.append(Name(self.spans[node][0], text))

    def _assign(self, target: cst.CSTNode, value: cst.BaseExpression | None) -> None:
        match target:
            case cst.Name():
                self._scope.lists.setdefault(target.value, []).append(value)
                self.bound[target.value] += 1
                self._name(target, assigned=True, value=_value(value))
            case cst.Tuple() | cst.List():
                for element in target.elements:
                    self._assign(element.value, None)
            case _:
                if isinstance(target, cst.Subscript):
                    self.changed.add(_dotted(target.value))
                self.visit(target)

    def _grow(self, node: cst.AugAssign) -> None:
        name = _dotted(node.target)
        if name in self._scope.lists and isinstance(node.operator, cst.AddAssign):
            self._scope.more.setdefault(name, []).append(node.value)
        else:
            self.changed.add(name)


class _Runs:
    """The commands of a script: what its calls run."""

    def __init__(self, reader: _Reader) -> None:
        self.reader, self.spans, self.text = reader, reader.spans, reader.text
        # Each with the index of the parameter that takes the list.
        self.runners = {} if reader.bound["subprocess"] else {_RUNNER: 0}
        for call in reader.calls * _DEEPEST:
            self._note_runner(call)

    def _note_runner(self, call: _Call) -> None:
        """Note the function around a call if it passes one of its parameters on to be run."""
        scope, args = call.scope, call.node.args
        at = 0 if call.name in scope.parameters[:1] else self.runners.get(call.name, _STAR)
        if at == _STAR or at >= len(args) or self.reader.bound[scope.function] != 1:
            return
        value = args[at].value
        if isinstance(value, cst.List) and value.elements:
            value = value.elements[0].value  # [*cmd, ...]
        name = _dotted(value)
        if len(scope.lists.get(name, ())) != 1 or name in scope.more:
            return  # changed before it is run
        if name in scope.parameters:
            self.runners.setdefault(scope.function, scope.parameters.index(name))
        elif name and name == scope.star:
            self.runners.setdefault(scope.function, _STAR)

    def commands(self) -> Iterator[Command]:
        for call in self.reader.calls:
            at = self.runners.get(call.name)
            bar = _BARS.get(call.name, "") if at is None else self._bar(call, at)
            if at is None and not bar:
                continue
            start, end = self.spans[call.node.func]
            value = call.node.args[at].value if at is not None and not bar else None
            behind = self.spans[value][0] if at and value is not None else self.text.index("(", end) + 1
            for words in [self._flat(call)] if value is None else self._words(value, call.scope):
                yield Command(words, (start, behind), self.text[start:end], call.statement, bar)

    def _bar(self, call: _Call, at: int) -> str:
        """Why a wrapper cannot stand for a call that runs the list in its argument ``at``, empty where it can."""
        args = call.node.args
        shell = [arg for arg in args if arg.keyword and arg.keyword.value == "shell" and _dotted(arg.value) != "False"]
        if at == _STAR or any(arg.star == "*" for arg in args[: at + 1]):
            return "words"
        if at >= len(args) or any(arg.keyword or arg.star for arg in args[: at + 1]):
            return "keyword"
        return "text" if shell or isinstance(args[at].value, cst.BaseString) else ""

    def _flat(self, call: _Call) -> tuple[Word, ...]:
        """A call as one word, and all words of the lists among its arguments."""
        lists = (found for arg in call.node.args for found in self._words(arg.value, call.scope))
        return Word(*self.spans[call.node], None), *(word for found in lists for word in found)

    def _words(self, node: cst.BaseExpression, scope: _Scope) -> list[tuple[Word, ...]]:
        """The lists of words that an expression may be, one with an unknown word where the text does not tell."""
        unknown = Word(*self.spans[node], _value(node))
        if isinstance(node, cst.List):
            return [tuple(self._element(element) for element in node.elements)]
        name = _dotted(node)
        if name not in scope.lists:
            return [(unknown,)]
        more: list[Word] = []
        for value in scope.more.get(name, ()):
            more += self._words(value, scope)[0] if isinstance(value, cst.List) else [Word(*self.spans[value], None)]
        lists = [value for value in scope.lists[name] if isinstance(value, cst.List)]
        known = len(lists) == len(scope.lists[name]) and name not in self.reader.changed
        found = [(*self._words(value, scope)[0], *more) for value in lists]
        return found if known else [*found, (unknown,)]

    def _element(self, element: cst.BaseElement) -> Word:
        plain = isinstance(element, cst.Element) and not element.value.lpar
        return Word(*self.spans[element.value], _value(element.value) if plain else None)


def _value(node: cst.CSTNode | None) -> str | None:
    """The value of a string, or None where it is none or the source does not tell it."""
    if not isinstance(node, cst.SimpleString | cst.ConcatenatedString):
        return None
    try:
        value = node.evaluated_value
    except (SyntaxError, ValueError):  # such as "\\N{no name}"
        return None
    return value if isinstance(value, str) else None


def _dotted(node: cst.CSTNode) -> str:
    """``a.b.c`` of names and attributes without parentheses, else empty."""
    if isinstance(node, cst.Name) and not node.lpar:
        return node.value
    if isinstance(node, cst.Attribute) and not node.lpar and (before := _dotted(node.value)):
        return f"{before}.{node.attr.value}"
    return ""


def parse(script: Script) -> Syntax:
    """The syntax of a Python script.

    A call gives one ``Command`` for each list that it may run: they share their ``head``, which is the callee and all
    before the list. Raises InputError where the text is no Python.
    """
    # The native parser takes neither lone surrogates nor a byte order mark, and drops leading form feeds.
    text = re.sub("[\ud800-\udfff]", "\ufffd", script.text)
    skipped = len(text) - len(text.removeprefix("\ufeff").lstrip("\f"))
    limits.check(script)
    try:
        limits.check_python(script, text[skipped:])
        module = cst.parse_module(text[skipped:])
        reader = _Reader(script, _spans(module, text, skipped))
        reader.body(module.body)
    except (cst.ParserSyntaxError, cst.CSTValidationError, SyntaxError, tokenize.TokenError) as error:
        raise _not_python(script, text, error) from None
    except (KeyError, RecursionError):
        raise InputError("nested too deeply", where=f"{script.path}:1:1") from None
    names = sorted(reader.names, key=lambda name: name.offset)
    commands = tuple(_Runs(reader).commands())
    imports, end = _imports(module, reader)
    return Syntax(script, tuple(reader.statements), commands, tuple(names), imports, end)


def _spans(module: cst.Module, text: str, skipped: int) -> dict[cst.CSTNode, tuple[int, int]]:
    """Where each node begins and ends, in characters of the text. libcst counts bytes."""
    places: Sequence[int] = range(len(text) + 1)
    if not text.isascii():
        places = [i for i, character in enumerate(text) for _ in character.encode()] + [len(text)]
    last = len(places) - 1  # libcst adds the newline that a file lacks at its end
    first = len(text[:skipped].encode())
    found = MetadataWrapper(module, unsafe_skip_copy=True).resolve(ByteSpanPositionProvider)
    return {
        node: (places[first + span.start], places[min(first + span.start + span.length, last)])
        for node, span in found.items()
    }


def _not_python(script: Script, text: str, error: Exception) -> InputError:
    """What is wrong, in the words of the running Python where it agrees: libcst names places only for some."""
    where, what = f"{script.path}:1:1", str(getattr(error, "message", error)).partition("\n")[0]
    try:
        compile(text.removeprefix("\ufeff"), script.path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as better:
        where, what = f"{script.path}:{better.lineno or 1}:{max(better.offset or 1, 1)}", better.msg
    except (ValueError, RecursionError, MemoryError) as better:
        what = str(better)
    return InputError(f"not Python: {what}", where=where)


def _imports(module: cst.Module, reader: _Reader) -> tuple[dict[str, int], int]:
    """The modules that plain imports at the top level name, and where a line behind the first imports goes."""
    imports: dict[str, int] = {}
    end, at_top = -1, True
    for line in module.body:
        smalls = line.body if isinstance(line, cst.SimpleStatementLine) else ()
        first = smalls[0] if smalls else None
        documents = isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
        if at_top and isinstance(first, cst.Import | cst.ImportFrom):
            newline = re.compile(r"\r\n?|\n").search(reader.text, reader.spans[line][1])
            end = newline.end() if newline else len(reader.text)
        elif at_top and not documents:
            at_top = False
            end = reader.first(line) if end < 0 else end
        for alias in (alias for small in smalls if isinstance(small, cst.Import) for alias in small.names):
            if alias.asname is None:
                name = _dotted(alias.name)
                imports.setdefault(name, reader.spans[line][0])
                imports.setdefault(name.partition(".")[0], reader.spans[line][0])
    return imports, end if end >= 0 else len(reader.text)
