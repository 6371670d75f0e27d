"""Everything that the package opensandbox can do with Icebox, in both of its ways to call."""

import asyncio
import os
import time
from datetime import datetime, timedelta, timezone

import httpx

from opensandbox import (
    InMemoryAsyncPoolStateStore,
    InMemoryPoolStateStore,
    PoolCreationSpec,
    Sandbox,
    SandboxManager,
    SandboxManagerSync,
    SandboxPool,
    SandboxPoolAsync,
    SandboxPoolManagerAsync,
    SandboxPoolManagerSync,
    SandboxSync,
)
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.execd import ExecutionResult, RunCommandOpts
from opensandbox.models.filesystem import (
    ContentReplaceEntry,
    DirectoryListEntry,
    MoveEntry,
    SearchEntry,
    SetPermissionEntry,
    WriteEntry,
)
from opensandbox.models.sandboxes import NetworkRule, SandboxFilter, SnapshotFilter

IMAGE = os.environ["IMAGE"]
CREATE = {"image": IMAGE, "resource": {"cpu": "1", "memory": "256Mi"}, "ready_timeout": timedelta(seconds=120)}
READY = (timedelta(seconds=60), timedelta(milliseconds=100))


class Now:
    """What is awaited of the one way to call, and is there at once in the other, written once."""

    def __init__(self, loop):
        self.loop = loop

    def __call__(self, value):
        if self.loop is None:
            return value
        if asyncio.iscoroutine(value):
            return self.loop.run_until_complete(value)
        return value


def texts(messages):
    return [message.text for message in messages]


def refused(now, status, call):
    try:
        now(call())
    except SandboxApiException as error:
        assert error.status_code == status, error
        return
    raise AssertionError("it was not refused")


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def sandbox_calls(now, sandbox_class, manager):
    sandbox = now(sandbox_class.create(**CREATE, env={"FROM_CREATE": "yes"}, metadata={"job": "python"}))
    now(sandbox.check_ready(*READY))
    assert now(sandbox.is_healthy())
    assert now(sandbox.get_info()).image.image == IMAGE
    assert now(sandbox.get_metrics()).cpu_count == 1
    assert now(sandbox.metrics.get_metrics(sandbox.id)).memory_total_in_mib > 200
    assert now(sandbox.patch_metadata({"stage": "one"})).metadata == {"job": "python", "stage": "one"}
    now(sandbox.renew(timedelta(minutes=30)))
    endpoint = now(sandbox.get_endpoint(8000))
    assert endpoint.endpoint.endswith("/proxy/8000")
    assert "User-Agent" in endpoint.build_request_headers(sandbox.connection_config)
    refused(now, 400, lambda: sandbox.get_signed_endpoint(8000, 2_000_000_000))
    assert now(sandbox.get_egress_policy()).default_action == "deny"
    now(sandbox.patch_egress_rules([NetworkRule(action="deny", target="example.com")]))
    refused(now, 501, lambda: sandbox.patch_egress_rules([NetworkRule(action="allow", target="example.com")]))
    now(sandbox.delete_egress_rules(["example.com"]))

    commands(now, sandbox)
    files(now, sandbox)

    again = now(sandbox_class.connect(sandbox.id))
    now(again.close())
    now(sandbox.pause())
    until(lambda: now(manager.get_sandbox_info(sandbox.id)).status.state == "Paused", "it is paused")
    resumed = now(sandbox_class.resume(sandbox.id))
    assert texts(now(resumed.commands.run("cat /root/kept")).logs.stdout) == ["kept"]
    now(resumed.close())

    snapshot = now(sandbox.create_snapshot("from python"))
    until(lambda: now(manager.get_snapshot(snapshot.id)).status.state == "Ready", "the snapshot is ready")
    copy = now(sandbox_class.create(**{**CREATE, "image": None}, snapshot_id=snapshot.id))
    assert now(copy.files.read_file("/root/kept")) == "kept"
    now(copy.kill())
    now(copy.close())
    manager_calls(now, sandbox, manager)
    now(sandbox.destroy())


def commands(now, sandbox):
    run = now(sandbox.commands.run("echo out; echo err >&2; echo $FROM_CREATE; exit 3"))
    assert (texts(run.logs.stdout), texts(run.logs.stderr), run.exit_code) == (["out", "yes"], ["err"], 3)
    run.add_result(ExecutionResult(text="of the program", timestamp=0))
    assert len(run.result) == 1
    assert texts(now(sandbox.commands.run(["printf", "%s", "$HOME"])).logs.stdout) == ["$HOME"]
    now(sandbox.commands.set_env("KEPT", "two words it's"))
    assert texts(now(sandbox.commands.run("echo \"$KEPT\"")).logs.stdout) == ["two words it's"]
    background = now(
        sandbox.commands.run("echo one; echo two >&2; sleep 1000", opts=RunCommandOpts(background=True))
    )
    logs = lambda cursor=None: now(sandbox.commands.get_background_command_logs(background.id, cursor=cursor))
    until(lambda: logs().content == "one\ntwo\n", "its lines have come")
    assert logs(logs().cursor).content == ""
    assert now(sandbox.commands.get_command_status(background.id)).running
    now(sandbox.commands.interrupt(background.id))
    assert now(sandbox.commands.get_command_status(background.id)).exit_code == -1
    session = now(sandbox.commands.create_session(working_directory="/tmp"))
    now(sandbox.commands.run_in_session(session, "export A=b; cd /var"))
    assert texts(now(sandbox.commands.run_in_session(session, "echo $A; pwd")).logs.stdout) == ["b", "/var"]
    now(sandbox.commands.delete_session(session))


def files(now, sandbox):
    fs = sandbox.files
    now(fs.write_file("/root/kept", "kept"))
    now(fs.create_directories([WriteEntry(path="/tmp/py/sub", mode=750)]))
    now(fs.write_files([WriteEntry(path="/tmp/py/a.txt", data="a=1\n", mode=640), WriteEntry(path="/tmp/py/b", data=b"\0\xff")]))
    assert now(fs.read_file("/tmp/py/a.txt")) == "a=1\n"
    assert now(fs.read_bytes("/tmp/py/b")) == b"\0\xff"
    stream = now(fs.read_bytes_stream("/tmp/py/a.txt"))
    if now.loop is None:
        assert b"".join(stream) == b"a=1\n"
    else:

        async def collect():
            return b"".join([chunk async for chunk in stream])

        assert now(collect()) == b"a=1\n"
    info = now(fs.get_file_info(["/tmp/py/a.txt"]))["/tmp/py/a.txt"]
    assert (info.size, info.mode, info.owner) == (4, 640, "root")
    now(fs.set_permissions([SetPermissionEntry(path="/tmp/py/a.txt", mode=600, owner="nobody")]))
    entry = ContentReplaceEntry(path="/tmp/py/a.txt", old_content="a", new_content="b")
    now(fs.replace_contents([entry]))
    assert [result.replaced_count for result in now(fs.replace_contents_detailed([entry]))] == [0]
    now(fs.move_files([MoveEntry(src="/tmp/py/a.txt", dest="/tmp/py/sub/a.txt")]))
    assert [each.path for each in now(fs.search(SearchEntry(path="/tmp/py", pattern="*.txt")))] == ["/tmp/py/sub/a.txt"]
    assert len(now(fs.list_directory(DirectoryListEntry(path="/tmp/py", depth=1)))) == 2
    now(fs.delete_files(["/tmp/py/b"]))
    as_user = sandbox.files_with_identity(65534, 65534)
    now(as_user.write_file("/tmp/of-nobody", "x"))
    assert now(fs.with_identity(65534, 65534).read_file("/tmp/of-nobody")) == "x"
    assert now(fs.get_file_info(["/tmp/of-nobody"]))["/tmp/of-nobody"].owner == "nobody"
    now(fs.delete_directories(["/tmp/py"]))
    refused(now, 404, lambda: fs.get_file_info(["/tmp/py"]))


def manager_calls(now, sandbox, manager):
    listed = now(manager.list_sandbox_infos(SandboxFilter(states=["Running"], metadata={"stage": "one"})))
    assert [info.id for info in listed.sandbox_infos] == [sandbox.id]
    now(manager.patch_sandbox_metadata(sandbox.id, {"stage": None}))
    now(manager.renew_sandbox(sandbox.id, timedelta(minutes=20)))
    now(manager.pause_sandbox(sandbox.id))
    until(lambda: now(manager.get_sandbox_info(sandbox.id)).status.state == "Paused", "it is paused")
    now(manager.resume_sandbox(sandbox.id))
    until(lambda: now(manager.get_sandbox_info(sandbox.id)).status.state == "Running", "it runs")
    snapshot = now(manager.create_snapshot(sandbox.id))
    until(lambda: now(manager.get_snapshot(snapshot.id)).status.state == "Ready", "the snapshot is ready")
    found = now(manager.list_snapshots(SnapshotFilter(sandbox_id=sandbox.id, states=["Ready"])))
    assert len(found.snapshot_infos) == 2
    for each in found.snapshot_infos:
        now(manager.delete_snapshot(each.id))
    until(lambda: not now(manager.list_snapshots(SnapshotFilter(sandbox_id=sandbox.id))).snapshot_infos, "they are gone")
    refused(now, 404, lambda: manager.get_snapshot(snapshot.id))


def pool_calls(now, pool_class, store, config, pool_manager):
    pool = pool_class(
        pool_name="ours",
        max_idle=1,
        state_store=store,
        connection_config=config,
        creation_spec=PoolCreationSpec(image=IMAGE, resource=CREATE["resource"]),
    )
    now(pool.start())

    def settled():
        if now.loop is not None:
            now(asyncio.sleep(0.1))
        return now(pool.snapshot()).idle_count == 1

    until(settled, "one is idle")
    assert len(now(pool.snapshot_idle_entries())) == 1
    sandbox = now(pool.acquire())
    assert texts(now(sandbox.commands.run("echo pooled")).logs.stdout) == ["pooled"]
    now(sandbox.destroy())
    now(pool.resize(0))
    now(pool.release_all_idle())
    now(pool.release_all_idle_parallel())
    now(pool.shutdown())
    now(pool_manager.destroy("ours"))


def store_calls(now, store):
    """What the program keeps by itself."""
    pool, owner, second = "other", "owner", timedelta(seconds=1)
    now(store.set_max_idle(pool, 2))
    now(store.get_max_idle(pool))
    now(store.set_idle_entry_ttl(pool, timedelta(hours=1)))
    for each in ("a", "b", "c"):
        now(store.put_idle(pool, each))
    now(store.remove_idle(pool, "c"))
    assert now(store.snapshot_counters(pool)).idle_count == 2
    assert len(now(store.snapshot_idle_entries(pool))) == 2
    assert now(store.try_take_idle(pool)) == "a"
    assert now(store.try_take_idle_min_ttl(pool, second)).sandbox_id == "b"
    now(store.reap_expired_idle(pool, datetime.now(timezone.utc)))
    now(store.reap_expired_idle_min_ttl(pool, datetime.now(timezone.utc), second))
    assert now(store.try_acquire_primary_lock(pool, owner, second))
    assert now(store.renew_primary_lock(pool, owner, second))
    now(store.release_primary_lock(pool, owner))
    now(store.begin_destroy(pool, owner))
    now(store.get_destroy_state(pool))
    now(store.clear_pool_state(pool))
    now(store.mark_destroyed(pool, owner, second))


def config_calls(now, config):
    assert config.get_api_key() == os.environ["OPEN_SANDBOX_API_KEY"]
    assert config.get_domain() == os.environ["OPEN_SANDBOX_DOMAIN"]
    assert config.get_base_url().endswith("/v1")
    assert config.protocol_must_be_valid("https") == "https"
    assert config.timeout_must_be_positive(timedelta(seconds=1))
    own = config.with_transport_if_missing()
    transport = own.new_owned_transport()
    request = httpx.Request("GET", f"http://{config.get_domain()}/health")
    for each in (transport, transport.inner):
        if now.loop is None:
            assert each.handle_request(request).status_code == 200
        else:
            assert now(each.handle_async_request(request)).status_code == 200
    for each in (transport, transport.inner):
        now(each.close() if now.loop is None else each.aclose())
    now(own.close_transport_if_owned())


def main():
    now = Now(None)
    manager = SandboxManagerSync.create()
    config_calls(now, manager.connection_config)
    store_calls(now, InMemoryPoolStateStore())
    sandbox_calls(now, SandboxSync, manager)
    killed = SandboxSync.create(**CREATE)
    manager.kill_sandbox(killed.id)
    killed.close()
    manager.close()
    store = InMemoryPoolStateStore()
    pool_calls(now, SandboxPool, store, ConnectionConfigSync(), SandboxPoolManagerSync(state_store=store))

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    now = Now(loop)
    manager = now(SandboxManager.create())
    config_calls(now, manager.connection_config)
    store_calls(now, InMemoryAsyncPoolStateStore())
    sandbox_calls(now, Sandbox, manager)
    killed = now(Sandbox.create(**CREATE))
    now(manager.kill_sandbox(killed.id))
    now(killed.close())
    now(manager.close())
    store = InMemoryAsyncPoolStateStore()
    pool_calls(now, SandboxPoolAsync, store, ConnectionConfig(), SandboxPoolManagerAsync(state_store=store))
    loop.close()


if __name__ == "__main__":
    main()
