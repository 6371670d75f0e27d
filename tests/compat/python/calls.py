"""Watches the calls that a test makes of a Python package, from outside: `python calls.py PACKAGE[,MODULE...] PROGRAM RESULT [ARG...]`
runs PROGRAM and writes {"all": [...], "called": [...]} to RESULT. The list is that of what the modules export, and of the classes of
every object that a call gives; names with an underscore are private. What the package calls of itself does not count.
"""

import contextvars
import functools
import importlib
import inspect
import json
import re
import runpy
import sys

_inside = contextvars.ContextVar("inside", default=False)


class Calls:
    def __init__(self, package):
        self.package = package
        self.all = set()
        self.called = set()
        self.labels = {}

    def _ours(self, cls):
        return cls.__module__.split(".")[0] == self.package and not issubclass(cls, (BaseException, tuple, str, int))

    def export(self, module):
        names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        exports = {name: getattr(module, name) for name in sorted(names)}
        classes = {name: value for name, value in exports.items() if inspect.isclass(value) and self._ours(value)}
        for name, cls in classes.items():
            self.labels.setdefault(cls, name)
        for name, cls in classes.items():
            self._methods(cls, self.labels[cls])
        for name, value in exports.items():
            if inspect.isfunction(value) and value.__module__.split(".")[0] == self.package:
                self.all.add(name)
                setattr(module, name, self._recording(lambda owner, name=name: name, value))

    def _methods(self, cls, label):
        for owner in cls.__mro__:
            if not self._ours(owner):
                continue
            for key, value in list(vars(owner).items()):
                if key.startswith("_") or inspect.isclass(value) or isinstance(value, property):
                    continue
                if isinstance(value, functools.cached_property):
                    continue
                if not callable(value) and not hasattr(type(value), "__get__"):
                    continue
                if isinstance(value, _Watched):
                    self.all.add(f"{label}.{key}")
                elif not inspect.isdatadescriptor(value):
                    self.all.add(f"{label}.{key}")
                    setattr(owner, key, _Watched(self, key, value))

    def label_of(self, instance, owner, key):
        cls = owner if instance is None else type(instance)
        for each in cls.__mro__:
            if each in self.labels:
                return f"{self.labels[each]}.{key}"
        return None

    def _recording(self, label, function):
        def enter():
            name = label(None)
            if name is not None:
                self.called.add(name)

        @functools.wraps(function)
        def watched(*args, **kwargs):
            if _inside.get():
                return function(*args, **kwargs)
            enter()
            token = _inside.set(True)
            try:
                result = function(*args, **kwargs)
            finally:
                _inside.reset(token)
            if inspect.iscoroutine(result):
                return self._awaiting(result)
            self.discover(result)
            return result

        return watched

    async def _awaiting(self, coroutine):
        token = _inside.set(True)
        try:
            result = await coroutine
        finally:
            _inside.reset(token)
        self.discover(result)
        return result

    def discover(self, value, label=None):
        if isinstance(value, (list, tuple)):
            for each in value:
                self.discover(each)
            return
        cls = type(value)
        if not self._ours(cls):
            return
        if cls not in self.labels:
            self.labels[cls] = label or cls.__name__
            self._methods(cls, self.labels[cls])
        for key in dir(cls):
            # What hangs on an object, such as sandbox.files, are properties.
            if key.startswith("_") or not isinstance(inspect.getattr_static(cls, key), (property, functools.cached_property)):
                continue
            token = _inside.set(True)
            try:
                each = getattr(value, key)
            except Exception:
                continue
            finally:
                _inside.reset(token)
            if self._ours(type(each)) and type(each) not in self.labels:
                self.discover(each, f"{self.labels[cls]}.{key}")


class _Watched:
    """A method whose calls are told, whatever kind of descriptor it is."""

    def __init__(self, calls, key, original):
        self.calls, self.key, self.original = calls, key, original
        self.__doc__ = getattr(original, "__doc__", None)

    def __get__(self, instance, owner=None):
        bound = self.original.__get__(instance, owner) if hasattr(self.original, "__get__") else self.original
        if _inside.get() or not callable(bound):
            return bound
        return self.calls._recording(lambda _: self.calls.label_of(instance, owner, self.key), bound)


def main():
    modules, program, result, *arguments = sys.argv[1:]
    names = modules.split(",")
    calls = Calls(re.split(r"[.]", names[0])[0])
    for name in names:
        calls.export(importlib.import_module(name))
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        with open(result, "w", encoding="utf-8") as file:
            json.dump({"all": sorted(calls.all), "called": sorted(calls.called)}, file)


if __name__ == "__main__":
    main()
