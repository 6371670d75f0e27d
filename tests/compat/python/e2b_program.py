"""What a program does with the E2B client for Python: `e2b_program.py sync|async`. Everything that the client exports is used once.
The two clients differ in little but `await`, which `of` hides.
"""

import asyncio
import inspect
import sys
import time
import urllib.request
import uuid

import e2b
import httpx

ASYNC = sys.argv[1] == "async"
Sandbox = e2b.AsyncSandbox if ASYNC else e2b.Sandbox
Template = e2b.AsyncTemplate if ASYNC else e2b.Template
Volume = e2b.AsyncVolume if ASYNC else e2b.Volume
Secret = e2b.AsyncSecret if ASYNC else e2b.Secret
LIVES = 300


async def of(value):
    return await value if inspect.isawaitable(value) else value


async def raises(kind, call):
    try:
        await of(call())
    except kind as error:
        return error
    raise AssertionError(f"this should have been refused with {kind.__name__}")


async def eventually(look, what):
    until = time.monotonic() + 30
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < until, f"this did not come about: {what}"
        await asyncio.sleep(0.05)


async def lifecycle(sandbox, job):
    assert await of(sandbox.is_running())
    info = await of(sandbox.get_info())
    assert (info.sandbox_id, info.metadata) == (sandbox.sandbox_id, {"job": job})
    assert info.state == e2b.SandboxState.RUNNING and info.cpu_count == 2
    assert (await of(Sandbox.get_info(sandbox.sandbox_id))).sandbox_id == sandbox.sandbox_id
    await of(sandbox.set_timeout(2 * LIVES))
    assert (await of(sandbox.get_info())).end_at > info.end_at
    await of(Sandbox.set_timeout(sandbox.sandbox_id, LIVES))

    second = await of(Sandbox.create("base", metadata={"job": job, "second": "yes"}))
    pages = Sandbox.list(query=e2b.SandboxQuery(metadata={"job": job}), limit=1)
    seen = set()
    while pages.has_next:
        seen |= {each.sandbox_id for each in await of(pages.next_items())}
    assert seen == {sandbox.sandbox_id, second.sandbox_id}, seen
    assert await of(second.kill()) and not await of(second.is_running())
    assert not await of(Sandbox.kill(second.sandbox_id))
    await raises(e2b.NotFoundException, lambda: Sandbox.connect(second.sandbox_id))
    await raises(Exception, lambda: Sandbox.create("no-such-template"))
    await raises(e2b.AuthenticationException, lambda: Sandbox.create(api_key="e2b_" + "0" * 40))

    same = await of(Sandbox.connect(sandbox.sandbox_id))
    assert (await of(same.commands.run("echo $FROM_CREATE"))).stdout == "yes\n"
    assert (await of(sandbox.connect(timeout=LIVES))).sandbox_id == sandbox.sandbox_id


async def commands(sandbox):
    told = []
    result = await of(
        sandbox.commands.run("whoami; pwd; echo $A >&2", cwd="/tmp", envs={"A": "ä"}, on_stdout=told.append)
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "user\n/tmp\n", "ä\n")
    assert "".join(told) == "user\n/tmp\n"
    assert (await of(sandbox.commands.run("id -u", user="root"))).stdout == "0\n"
    error = await raises(e2b.CommandExitException, lambda: sandbox.commands.run("echo no >&2; exit 3"))
    assert (error.exit_code, error.stderr) == (3, "no\n")
    await raises(e2b.TimeoutException, lambda: sandbox.commands.run("sleep 60", timeout=1))

    cat = await of(sandbox.commands.run("cat", background=True, stdin=True))
    assert cat.pid in [process.pid for process in await of(sandbox.commands.list())]
    await of(sandbox.commands.send_stdin(cat.pid, "one\n"))
    await of(cat.send_stdin("two\n"))
    await of(cat.close_stdin())
    assert (await of(cat.wait())).stdout == "one\ntwo\n"
    cat = await of(sandbox.commands.run("cat", background=True, stdin=True))
    if ASYNC:
        stream = sandbox.commands.stream_input(cat.pid)
        await of(stream.send("streamed\n"))
        await of(stream.close())
    else:
        sandbox.commands.stream_input(cat.pid, iter(["streamed\n"]))
    await of(sandbox.commands.close_stdin(cat.pid))
    assert (await of(cat.wait())).stdout == "streamed\n"

    long = await of(sandbox.commands.run("sleep 600", background=True))
    again = await of(sandbox.commands.connect(long.pid))
    await of(again.disconnect())
    assert await of(long.kill())
    await raises(e2b.CommandExitException, long.wait)
    long = await of(sandbox.commands.run("sleep 600", background=True))
    assert await of(sandbox.commands.kill(long.pid)) and not await of(sandbox.commands.kill(long.pid))
    await raises(e2b.NotFoundException, lambda: sandbox.commands.connect(long.pid))


async def files(sandbox):
    files = sandbox.files
    assert await of(files.make_dir("work/deep")) and not await of(files.make_dir("work/deep"))
    written = await of(files.write("work/one.txt", "première\n"))
    assert written.path == "/home/user/work/one.txt"
    assert await of(files.read("work/one.txt")) == "première\n"
    content = bytes(range(256)) * 12_000
    await of(files.write("/tmp/bytes", content))
    assert await of(files.read("/tmp/bytes", format="bytes")) == content
    streamed = 0
    reader = await of(files.read("/tmp/bytes", format="stream"))
    if ASYNC:
        async for piece in reader:
            streamed += len(piece)
    else:
        for piece in reader:
            streamed += len(piece)
    assert streamed == len(content)
    assert len(await of(files.write_files([{"path": "work/a", "data": "A"}, {"path": "work/deep/b", "data": b"B"}]))) == 2
    assert sorted(entry.name for entry in await of(files.list("work"))) == ["a", "deep", "one.txt"]
    assert sorted(entry.name for entry in await of(files.list("work", depth=2))) == ["a", "b", "deep", "one.txt"]
    moved = await of(files.rename("work/a", "work/c"))
    assert (moved.name, moved.type) == ("c", e2b.FileType.FILE) and not await of(files.exists("work/a"))
    info = await of(files.get_info("work/c"))
    assert (info.size, info.owner, info.permissions) == (1, "user", "-rw-r--r--")
    await of(files.write("/root/secret", "x", user="root"))
    await of(files.remove("work/deep"))
    assert not await of(files.exists("work/deep"))
    await raises(e2b.NotFoundException, lambda: files.read("none"))

    await of(files.make_dir("watched"))
    events = []
    if ASYNC:
        watch = await files.watch_dir("watched", on_event=events.append)
    else:
        watch = files.watch_dir("watched")
    await of(files.write("watched/file", "x"))

    async def told():
        if not ASYNC:
            events.extend(watch.get_new_events())
        return ("file", e2b.FilesystemEventType.CREATE) in [(event.name, event.type) for event in events]

    await eventually(told, "the new file is told")
    await of(watch.stop())


async def terminals(sandbox):
    said = bytearray()
    size = e2b.PtySize(rows=24, cols=80)
    options = {"on_data": said.extend} if ASYNC else {}
    terminal = await of(sandbox.pty.create(size, envs={"P": "pty"}, **options))
    await of(sandbox.pty.resize(terminal.pid, e2b.PtySize(rows=30, cols=100)))
    await of(sandbox.pty.send_stdin(terminal.pid, b"stty size; echo $P-$TERM; touch begun; cat; touch ended\n"))

    async def made(file):
        await eventually(lambda: of(sandbox.files.exists(file)), file)

    # From then on Ctrl-D means the end of the input: while the shell reads a line, it is a key like others.
    await made("begun")
    second = await of(sandbox.pty.connect(terminal.pid, **options))
    await of(second.disconnect())
    if ASYNC:
        stream = sandbox.pty.stream_input(terminal.pid)
        await stream.send(b"\x04")
        await stream.close()
    else:
        sandbox.pty.stream_input(terminal.pid, iter([b"\x04"]))
    await made("ended")
    await of(sandbox.pty.send_stdin(terminal.pid, b"exit\n"))
    await of(terminal.wait() if ASYNC else terminal.wait(on_pty=said.extend))
    assert b"30 100" in said and b"pty-xterm" in said, bytes(said)
    other = await of(sandbox.pty.create(size, **options))
    assert await of(sandbox.pty.kill(other.pid))


async def git(sandbox):
    git, path, bare = sandbox.git, "/home/user/repo", "/home/user/origin.git"
    await of(git.init(bare, bare=True, initial_branch="main"))
    await of(git.configure_user("Agent", "agent@example.com"))
    await of(git.set_config("pull.rebase", "true"))
    assert await of(git.get_config("pull.rebase")) == "true"
    await of(git.init(path, initial_branch="main"))
    await of(sandbox.files.write(f"{path}/file", "one\n"))
    assert (await of(git.status(path))).has_untracked
    await of(git.add(path))
    await of(git.commit(path, "first"))
    await of(git.remote_add(path, "origin", bare))
    assert await of(git.remote_get(path, "origin")) == bare
    await of(git.push(path, remote="origin", branch="main", set_upstream=True))
    await of(git.create_branch(path, "topic"))
    assert (await of(git.branches(path))).current_branch == "topic"
    await of(git.checkout_branch(path, "main"))
    await of(git.delete_branch(path, "topic", force=True))
    await of(sandbox.files.write(f"{path}/file", "two\n"))
    await of(git.add(path))
    await of(git.reset(path))
    await of(git.restore(path, paths=["file"]))
    assert (await of(git.status(path))).is_clean
    await of(git.clone(bare, path="/home/user/clone"))
    await of(git.pull("/home/user/clone"))
    assert await of(sandbox.files.read("/home/user/clone/file")) == "one\n"
    await of(git.dangerously_authenticate("user", "token", host="example.com"))


async def addresses(sandbox):
    assert sandbox.get_host(8000).startswith(f"8000-{sandbox.sandbox_id}.")
    up = sandbox.upload_url("/home/user/sent")
    assert httpx.post(up, files={"file": ("sent", b"sent")}).is_success
    down = sandbox.download_url("/home/user/sent", use_signature_expiration=120)
    assert urllib.request.urlopen(down).read() == b"sent"
    assert e2b.get_signature("/x", "read", "user", "token")["signature"].startswith("v1_")

    async def measured():
        return await of(sandbox.get_metrics())

    assert (await eventually(measured, "there are metrics"))[-1].cpu_count == 2
    assert await of(Sandbox.get_metrics(sandbox.sandbox_id))


async def is_not_running(box):
    assert not await of(box.is_running())
    for use in (
        lambda: box.commands.run("true"),
        lambda: box.commands.list(),
        lambda: box.files.read("n"),
        lambda: box.files.write("n", "x"),
        lambda: box.files.list("."),
    ):
        await raises(e2b.SandboxNotRunningException, use)


async def pauses():
    box = await of(Sandbox.create(timeout=LIVES))
    await of(box.commands.run("i=0; while :; do i=$((i+1)); echo $i > n; sleep 0.05; done", background=True))

    async def counts():
        return await of(box.files.exists("n"))

    await eventually(counts, "it counts")
    await of(box.pause())
    assert (await of(Sandbox.get_info(box.sandbox_id))).state == e2b.SandboxState.PAUSED
    await is_not_running(box)
    same = await of(Sandbox.connect(box.sandbox_id))
    before = int(await of(same.files.read("n")))

    async def goes_on():
        return int(await of(same.files.read("n")) or before) > before

    await eventually(goes_on, "it counts on")
    await of(same.beta_pause())
    assert await of(Sandbox.kill(box.sandbox_id))
    await is_not_running(box)

    box = await of(Sandbox.create(timeout=2, lifecycle={"on_timeout": "pause", "auto_resume": True}))
    await of(box.files.write("kept", "x"))

    async def paused():
        return (await of(Sandbox.get_info(box.sandbox_id))).state == e2b.SandboxState.PAUSED

    await eventually(paused, "it pauses by itself")
    assert await of(box.files.read("kept")) == "x"
    await of(box.kill())


async def snapshots(sandbox):
    await of(sandbox.files.write("at-snapshot", "then"))
    snapshot = await of(sandbox.create_snapshot())
    pages = sandbox.list_snapshots()
    assert [each.snapshot_id for each in await of(pages.next_items())] == [snapshot.snapshot_id]
    assert await of(Sandbox.list_snapshots().next_items())
    made = await of(Sandbox.create(snapshot.snapshot_id))
    assert await of(made.files.read("at-snapshot")) == "then"
    await of(made.kill())
    assert await of(Sandbox.delete_snapshot(snapshot.snapshot_id))
    family = f"family-{'async' if ASYNC else 'sync'}"
    for tag in ("v1", "v2"):
        await of(sandbox.files.write("at-snapshot", tag))
        await of(sandbox.create_snapshot(name=f"{family}:{tag}"))
    await of(Template.assign_tags(f"{family}:v1", ["stable"]))
    assert {each.tag for each in await of(Template.get_tags(family))} == {"v1", "v2", "stable"}
    made = await of(Sandbox.create(f"{family}:stable"))
    assert await of(made.files.read("at-snapshot")) == "v1"
    await of(made.kill())
    await of(Template.remove_tags(family, ["stable"]))
    for tag in ("v1", "v2"):
        assert await of(Sandbox.delete_snapshot(f"{family}:{tag}"))
    await of(sandbox.files.write("at-snapshot", "then"))
    for fork in [*await of(sandbox.fork(count=2)), *await of(Sandbox.fork(sandbox.sandbox_id))]:
        assert await of(fork.files.read("at-snapshot")) == "then"
        await of(fork.kill())


async def absent(sandbox):
    await of(sandbox.update_network({"deny_out": ["10.0.0.0/8"]}))
    await raises(Exception, lambda: Sandbox.create(volume_mounts={"/data": "none"}))
    await raises(Exception, lambda: Sandbox.create(mcp={"github": {}}))
    await raises(Exception, lambda: Volume.list())
    await raises(Exception, lambda: Secret.list().next_items())
    plain = Template().from_base_image().run_cmd("true")
    logger = e2b.default_build_logger()
    await raises(Exception, lambda: Template.build(plain, "mine", on_build_logs=logger))
    await raises(Exception, lambda: Template.build_in_background(plain, "mine"))
    assert await of(Template.exists("base"))
    assert not await of(Template.alias_exists("none-of-that-name"))


def local():
    """What reaches no server."""
    for kind in (Template, e2b.TemplateBase):
        named = ("debian", "ubuntu", "fedora", "alpine", "arch", "python", "node", "bun", "base")
        sources = [getattr(kind(), f"from_{name}_image")() for name in named]
        sources += [kind().from_image("a:1", "u", "p"), kind().from_template("base")]
        sources += [kind().from_dockerfile("FROM debian\nRUN true\n"), kind().from_aws_registry("a", "i", "s", "r")]
        sources += [kind().from_gcp_registry("a", {"project_id": "p"}), kind().skip_cache().from_image("b")]
        assert len({kind.to_json(source) for source in sources}) == len(sources)
        assert kind.to_dockerfile(kind().from_debian_image().run_cmd("true")).startswith("FROM debian")
    built = Template().skip_cache().from_base_image()
    built = built.copy("program.py", "/app/").copy_items([{"src": "program.py", "dest": "/b/"}]).remove("/b")
    built = built.rename("/app/a", "/app/b").make_dir("/c").make_symlink("/c", "/d").run_cmd("true").set_workdir("/app")
    built = built.set_user("user").pip_install("x").npm_install("x").bun_install("x").apt_install("x")
    built = built.git_clone("https://example.com/a.git").set_envs({"A": "1"}).skip_cache()
    built.set_start_cmd("true", e2b.wait_for_timeout(1000))
    Template().from_base_image().set_ready_cmd("true")
    Template().from_template("mcp-gateway").add_mcp_server("github")
    Template().from_template("devcontainer").beta_dev_container_prebuild("/d").beta_set_dev_container_start("/d")
    ready = [e2b.wait_for_port(1), e2b.wait_for_url("http://localhost"), e2b.wait_for_process("p"), e2b.wait_for_file("/f")]
    assert all(each.get_cmd() for each in ready)

    config = e2b.ConnectionConfig(domain="example.com")
    assert config.get_host("id", "example.com", 80) == "80-id.example.com"
    assert config.get_sandbox_url("id", "example.com") and config.get_sandbox_direct_url("id", "example.com")
    config.get_request_timeout()
    config.get_api_params()
    e2b.ConnectionConfig.set_integration(None)
    entry = {"name": "a", "type": "file", "path": "/a"}
    assert e2b.WriteInfo.from_dict(entry).path == "/a"
    api = e2b.ApiClient(e2b.ConnectionConfig(api_key="e2b_" + "0" * 40))
    # The client inherits these and cannot do them itself.
    for broken in (
        lambda: e2b.EntryInfo.from_dict(entry),
        lambda: api.with_headers({}),
        lambda: api.with_cookies({}),
        lambda: api.with_timeout(httpx.Timeout(1)),
    ):
        try:
            broken()
        except TypeError:
            pass
    api.set_httpx_client(api.get_httpx_client())
    api.set_async_httpx_client(api.get_async_httpx_client())
    volumes = e2b.VolumeConnectionConfig(domain="example.com")
    volumes.get_request_timeout()
    volumes.get_api_params()


async def main():
    local()
    if len(sys.argv) > 2 and sys.argv[2] == "local":
        return
    job = f"python-{sys.argv[1]}-{uuid.uuid4()}"
    sandbox = await of(Sandbox.create(timeout=LIVES, metadata={"job": job}, envs={"FROM_CREATE": "yes"}))
    try:
        await lifecycle(sandbox, job)
        for part in (commands, files, terminals, git, addresses, snapshots, absent):
            await part(sandbox)
        await pauses()
    finally:
        await of(sandbox.kill())


asyncio.run(main())
