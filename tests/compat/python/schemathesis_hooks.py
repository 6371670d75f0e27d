"""What schemathesis does not know of Icebox. The first requests of an operation are replaced by ones that must be accepted, each about a
sandbox, snapshot or file that is in the state for it: random ones rarely are. What they make is deleted again. When it ends, the
statuses that each operation was answered with are written to the file ANSWERS.
"""

import atexit
import collections
import io
import itertools
import json
import os
import tarfile
import urllib.parse
import urllib.request

import schemathesis

schemathesis.serializer.alias("application/x-tar", "application/octet-stream")

URL, KEY, IMAGE = os.environ["ICEBOX_URL"], os.environ["ICEBOX_API_KEY"], os.environ["ICEBOX_IMAGE"]
SECONDS = 60
WAITING = {"prefer": f"wait={SECONDS}"}
# Of each operation, and of those that move whole disks.
ACCEPTED = int(os.environ["ACCEPTED"])
FORKS = 4
COSTLY = {"POST /v1/snapshots/import": 1, "POST /v1/snapshots/{id}/export": 1}

answers = collections.defaultdict(collections.Counter)
numbers = itertools.count()
given = collections.Counter()


def ask(method, path, body=None):
    """The JSON of the answer, or its bytes. Raises urllib.error.HTTPError."""
    raw = isinstance(body, bytes)
    request = urllib.request.Request(
        URL + path,
        method=method,
        data=body if raw or body is None else json.dumps(body).encode(),
        headers={
            "x-api-key": KEY,
            **WAITING,
            "content-type": "application/octet-stream" if raw else "application/json",
        },
    )
    if body is None:
        request.remove_header("Content-type")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        content = response.read()
        return json.loads(content) if "json" in response.headers.get("content-type", "") and content else content


def sandbox():
    """A new one."""
    return ask("POST", "/sandboxes", {"templateID": "base", "timeout": 3600})["sandboxID"]


kept = {}


def one(name="one"):
    """One that runs, the same every time for the same name."""
    if name not in kept:
        kept[name] = sandbox()
    ask("POST", f"/v2/sandboxes/{kept[name]}/connect", {"timeout": 3600})
    return kept[name]


def paused():
    found = one("pausing")
    ask("POST", f"/sandboxes/{found}/pause")
    return found


def snapshot(of, **body):
    return ask("POST", f"/v1/sandboxes/{of}/snapshots", body)["id"]


def exec_of(at, argv, **more):
    return ask("POST", f"/v1/sandboxes/{at}/execs?detach=true", {"argv": argv, **more})["id"]


def kill(*ids):
    for each in ids:
        ask("DELETE", f"/sandboxes/{each}")


def fresh():
    return f"/tmp/f{next(numbers)}"


def written():
    path = fresh()
    ask("PUT", f"/v1/sandboxes/{one()}/files/content?path={path}", b"content")
    return path


def with_id(**more):
    return {"path": {"id": one()}, **more}


def about(exec, **more):
    return {"path": {"id": one(), "exec": exec_of(one(), exec)}, **more}


def rollback():
    found = one("rolling")
    return {"path": {"id": found}, "body": {"snapshotId": snapshot(found, kind="memory")}, "headers": WAITING}


def acknowledge():
    # Held by a stream of its own: until it is acknowledged it stays.
    found = exec_of(one(), ["sleep", "600"])
    request = urllib.request.Request(
        f"{URL}/v1/sandboxes/{one()}/execs/{found}/output?acknowledge=true", headers={"x-api-key": KEY}
    )
    stream = urllib.request.urlopen(request, timeout=SECONDS)
    kept[found] = stream
    attachment = json.loads(stream.readline())["attachment"]
    return {
        "path": {"id": one(), "exec": found},
        "body": {"attachment": attachment, "stdout": 0},
        "after": lambda _: kept.pop(found).close(),
    }


def template():
    name = f"t{next(numbers)}"
    ask("POST", "/v1/templates", {"name": name, "image": IMAGE})
    return name


def export():
    found = snapshot(one("rolling"), kind="filesystem")
    return ask("POST", f"/v1/snapshots/{found}/export")


def archive():
    """A tar that no other is like."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"f{next(numbers)}"))
    return written.getvalue()


def tagged(tag):
    name = f"n{next(numbers)}"
    ask("POST", f"/sandboxes/{one()}/snapshots", {"name": f"{name}:{tag}"})
    return name


def e2b(sandbox_id=None, **more):
    return {"path": {"sandboxID": sandbox_id or one()}, **more}


NATIVE = {
    "POST /v1/sandboxes": lambda: {
        "body": {"template": "base", "timeout": 300},
        "headers": WAITING,
        "after": lambda made: kill(made["id"]),
    },
    "DELETE /v1/sandboxes/{id}": lambda: {"path": {"id": sandbox()}},
    "PATCH /v1/sandboxes/{id}/metadata": lambda: with_id(body={"a": "b", "c": None}),
    "POST /v1/sandboxes/{id}/pause": lambda: {"path": {"id": one("pausing")}, "body": {}, "headers": WAITING},
    "POST /v1/sandboxes/{id}/connect": lambda: {"path": {"id": paused()}, "body": {"timeout": 3600}},
    "POST /v1/sandboxes/{id}/resume": lambda: {"path": {"id": paused()}, "headers": WAITING},
    "POST /v1/sandboxes/{id}/rollback": rollback,
    "POST /v1/sandboxes/{id}/renew-expiration": lambda: with_id(body={"timeout": 3600}),
    "POST /v1/sandboxes/{id}/fork": lambda: with_id(
        body={"count": 1},
        after=lambda made: kill(*(each["sandbox"]["id"] for each in made)),
    ),
    "POST /v1/sandboxes/{id}/execs": lambda: with_id(
        body={"argv": ["sh", "-c", "echo a; echo b >&2; exit 3"]}, query={"detach": str(bool(next(numbers) % 2)).lower()}
    ),
    "GET /v1/sandboxes/{id}/execs/{exec}/output": lambda: about(["echo", "said"]),
    "POST /v1/sandboxes/{id}/execs/{exec}/acknowledge": acknowledge,
    "POST /v1/sandboxes/{id}/execs/{exec}/resize": lambda: {
        "path": {"id": one(), "exec": exec_of(one(), ["sleep", "60"], pty={"cols": 80, "rows": 24})},
        "body": {"cols": 100, "rows": 30},
    },
    "POST /v1/sandboxes/{id}/execs/{exec}/signal": lambda: about(["sleep", "60"], body={"signal": "SIGTERM"}),
    "POST /v1/sandboxes/{id}/execs/{exec}/stdin": lambda: {
        "path": {"id": one(), "exec": exec_of(one(), ["cat"], stdin=True)},
        "query": {"close": "true"},
        "body": b"typed\n",
    },
    "GET /v1/sandboxes/{id}/files/content": lambda: with_id(query={"path": written()}),
    "PUT /v1/sandboxes/{id}/files/content": lambda: with_id(query={"path": fresh()}, body=b"content"),
    "GET /v1/sandboxes/{id}/files/info": lambda: with_id(query={"path": written()}),
    "GET /v1/sandboxes/{id}/files/list": lambda: with_id(query={"path": "/etc", "depth": 2}),
    "POST /v1/sandboxes/{id}/files/directory": lambda: with_id(body={"path": fresh()}),
    "POST /v1/sandboxes/{id}/files/move": lambda: with_id(body={"from": written(), "to": fresh()}),
    "POST /v1/sandboxes/{id}/files/symlink": lambda: with_id(body={"target": "/etc", "path": fresh()}),
    "DELETE /v1/sandboxes/{id}/files": lambda: with_id(query={"path": written()}),
    "PATCH /v1/sandboxes/{id}/files": lambda: with_id(body={"path": written(), "mode": 0o600}),
    "GET /v1/sandboxes/{id}/endpoints/{port}": lambda: {"path": {"id": one(), "port": 8080}},
    "POST /v1/sandboxes/{id}/snapshots": lambda: with_id(
        body={"name": f"s{next(numbers)}"}, headers=WAITING, after=lambda made: ask("DELETE", f"/v1/snapshots/{made['id']}")
    ),
    "DELETE /v1/snapshots/{id}": lambda: {"path": {"id": snapshot(one("rolling"), kind="filesystem")}},
    "POST /v1/snapshots/{id}/export": lambda: {"path": {"id": snapshot(one("rolling"), kind="filesystem")}},
    "POST /v1/snapshots/import": lambda: {"body": export(), "query": {"name": f"i{next(numbers)}"}},
    "POST /v1/templates": lambda: {"body": {"name": f"t{next(numbers)}", "image": IMAGE}},
    "DELETE /v1/templates/{name}": lambda: {"path": {"name": template()}},
    "POST /v1/images": lambda: {"body": {"reference": IMAGE}},
    "POST /v1/images/import": lambda: {
        "body": archive(),
        "query": {"kind": "tar"},
        "after": lambda made: ask("DELETE", f"/v1/images/{made['id']}"),
    },
    "POST /v1/keys": lambda: {"body": {"project": "schemathesis", "label": "of schemathesis"}},
    "DELETE /v1/keys/{id}": lambda: {"path": {"id": ask("POST", "/v1/keys", {"project": "schemathesis"})["id"]}},
    "POST /v1/collect": lambda: {"body": {"dryRun": True}},
    **{
        f"GET /v1/{things}": dict
        for things in ("usage", "sandboxes", "snapshots", "templates", "images", "keys", "events")
    },
    "GET /v1/images/{ref}": lambda: {"path": {"ref": IMAGE}},
    "GET /v1/snapshots/{id}": lambda: {"path": {"id": snapshot(one("rolling"), kind="filesystem")}},
    "GET /v1/sandboxes/{id}": with_id,
    "GET /v1/sandboxes/{id}/stats": with_id,
    "GET /v1/sandboxes/{id}/logs": with_id,
    "GET /v1/sandboxes/{id}/execs": with_id,
}

E2B = {
    **{
        f"POST {path}": lambda: {
            "body": {"templateID": "base", "timeout": 300},
            "after": lambda made: kill(made["sandboxID"]),
        }
        for path in ("/sandboxes", "/v2/sandboxes")
    },
    "DELETE /sandboxes/{sandboxID}": lambda: e2b(sandbox()),
    "POST /sandboxes/{sandboxID}/pause": lambda: e2b(one("pausing"), body={"memory": True}),
    "POST /sandboxes/{sandboxID}/resume": lambda: e2b(paused(), body={"timeout": 600}),
    "POST /sandboxes/{sandboxID}/connect": lambda: e2b(paused(), body={"timeout": 600}),
    "POST /v2/sandboxes/{sandboxID}/connect": lambda: e2b(one("pausing"), body={}),
    "POST /sandboxes/{sandboxID}/fork": lambda: e2b(
        body={"count": 1}, after=lambda made: kill(*(each["sandbox"]["sandboxID"] for each in made))
    ),
    "POST /sandboxes/{sandboxID}/timeout": lambda: e2b(body={"timeout": 3600}),
    "POST /sandboxes/{sandboxID}/refreshes": lambda: e2b(body={"duration": 60}),
    "PUT /sandboxes/{sandboxID}/network": lambda: e2b(body={"denyOut": ["10.0.0.0/8"]}),
    "POST /sandboxes/{sandboxID}/snapshots": lambda: e2b(
        body={}, after=lambda made: ask("DELETE", f"/templates/{urllib.parse.quote(made['snapshotID'], safe='')}")
    ),
    "DELETE /templates/{templateID}": lambda: {"path": {"templateID": tagged("default")}},
    "GET /templates/{templateID}/tags": lambda: {"path": {"templateID": tagged("a")}},
    "POST /templates/tags": lambda: {"body": {"target": f"{tagged('a')}:a", "tags": ["b"]}},
    "DELETE /templates/tags": lambda: {"body": {"name": tagged("a"), "tags": ["a"]}},
    "GET /templates/{templateID}": lambda: {"path": {"templateID": "base"}},
    "GET /templates/aliases/{alias}": lambda: {"path": {"alias": "base"}},
    **{f"GET {path}": dict for path in ("/sandboxes", "/v2/sandboxes", "/snapshots", "/templates", "/v2/templates")},
    "GET /sandboxes/metrics": lambda: {"query": {"sandbox_ids": one()}},
    **{
        f"GET {path}": e2b
        for path in (
            "/sandboxes/{sandboxID}",
            "/sandboxes/{sandboxID}/metrics",
            "/sandboxes/{sandboxID}/logs",
            "/v2/sandboxes/{sandboxID}/logs",
        )
    },
}

ACCEPTABLE = {**NATIVE, **E2B}
after = {}


@schemathesis.hook
def before_call(context, case, kwargs):
    label = case.operation.label
    # All others are made from it; and a disk takes long.
    is_base = case.method.upper() == "DELETE" and "base" in (case.path_parameters or {}).values()
    if is_base or (label in COSTLY and case.path_parameters):
        case.path_parameters = {name: "another" for name in case.path_parameters}
    # A hundred at once are another test's.
    if label.endswith("/fork") and isinstance(case.body, dict) and case.body.get("count") in range(FORKS, 101):
        case.body = {**case.body, "count": FORKS}
    if label not in ACCEPTABLE or case.method.upper() != case.operation.method.upper() or given[label] >= min(ACCEPTED, COSTLY.get(label, ACCEPTED)):
        return
    given[label] += 1
    good = ACCEPTABLE[label]()
    case.path_parameters = {name: str(value) for name, value in good.get("path", {}).items()}
    case.query, case.headers, case.cookies = good.get("query", {}), good.get("headers", {}), {}
    if "body" in good:
        case.body = good["body"]
    after[id(case)] = good.get("after")


@schemathesis.hook
def after_call(context, case, response):
    if case.method.upper() == case.operation.method.upper():
        answers[case.operation.label][str(response.status_code)] += 1
    undo = after.pop(id(case), None)
    if undo is not None and response.status_code < 300:
        undo(json.loads(response.content) if response.content else None)


@atexit.register
def write_answers():
    with open(os.environ["ANSWERS"], "w", encoding="utf-8") as file:
        json.dump(answers, file)
