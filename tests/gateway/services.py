"""Services inside a sandbox for tests of the gateway: HTTP on 3000, WebSocket echo on 3001, raw connections on 3002."""
import base64, hashlib, http.server, json, socket, struct, sys, threading, time

state = {"open": 0, "connections": 0, "written": 0, "gate": threading.Event()}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def setup(self):
        super().setup()
        state["open"] += 1; state["connections"] += 1
        self.number = state["connections"]
    def finish(self):
        state["open"] -= 1
        super().finish()
    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    self.trailers = {}
                    while (line := self.rfile.readline().strip()):
                        name, value = line.split(b":", 1)
                        self.trailers[name.decode().lower()] = value.strip().decode()
                    return
                yield self.rfile.read(size)
                self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0:
                data = self.rfile.read1(min(left, 65536))
                if not data: return
                left -= len(data)
                yield data
    def answer(self, value, status=200, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, content in headers: self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        # In one piece: a connection that is shut down by another thread has all of an answer or nothing of it.
        head = b"".join(self._headers_buffer) + b"\r\n"
        self._headers_buffer = []
        self.wfile.write(head if self.command == "HEAD" else head + data)
    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data)); self.wfile.flush()
    def do_any(self):
        path = self.path.split("?")[0]
        if path == "/sse":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            state["gate"].clear()
            self.chunk(b"data: one\n\n")
            state["gate"].wait()
            self.chunk(b"data: two\n\n")
            self.chunk(b"")
        elif path == "/quiet":
            state["gate"].clear()
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            state["gate"].wait()
            self.chunk(b"late"); self.chunk(b"")
        elif path == "/next":
            state["gate"].set(); self.answer({})
        elif path == "/state":
            self.answer({k: v for k, v in state.items() if k != "gate"})
        elif path == "/bytes":
            total = int(self.path.split("=")[1])
            self.send_response(200)
            self.send_header("Content-Length", str(total))
            self.end_headers()
            block = bytes(range(256)) * 1024
            state["written"] = 0
            while total > 0:
                n = self.connection.send(block[:total])
                total -= n; state["written"] += n
        elif path == "/echo-stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Trailer", "X-Sum")
            self.end_headers()
            digest = hashlib.sha256()
            for data in self.body():
                digest.update(data); self.chunk(data)
            self.wfile.write(b"0\r\nX-Sum: %s\r\nX-Seen: %s\r\n\r\n" % (digest.hexdigest().encode(), json.dumps(getattr(self, "trailers", {})).encode()))
        elif path == "/hop":
            self.answer({}, headers=[("Connection", "X-Private, keep-alive"), ("X-Private", "1"), ("Keep-Alive", "timeout=9"), ("Proxy-Authenticate", "Basic"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Kept", "yes"), ("Service-Worker-Allowed", "/")])
        elif path == "/hang":
            state["gate"].clear(); state["gate"].wait(); self.answer({})
        elif path == "/early":
            self.answer({"early": True}, 413); self.close_connection = True
            # As servers do: closing with something unread would reset the connection, and the answer with it.
            self.connection.shutdown(socket.SHUT_WR)
            while self.rfile.read1(65536): pass
        elif path == "/half":
            self.send_response(200); self.send_header("Content-Length", "1000"); self.end_headers()
            self.wfile.write(b"half"); self.wfile.flush(); self.close_connection = True
        elif path == "/die-after":
            self.answer({"connection": self.number}); time.sleep(0); self.close_connection = False
            threading.Timer(0.05, lambda: self.connection.shutdown(socket.SHUT_RDWR)).start()
        else:
            digest = hashlib.sha256(); size = 0
            for data in self.body():
                digest.update(data); size += len(data)
            self.answer({"method": self.command, "path": self.path, "headers": [[k.lower(), v] for k, v in self.headers.items()], "size": size, "sha256": digest.hexdigest(), "connection": self.number})
    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_HEAD = do_any

def websocket(c):
    head = b""
    while b"\r\n\r\n" not in head: head += c.recv(4096)
    key = next(l.split(b":")[1].strip() for l in head.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key"))
    if b"GET /refuse" in head:
        c.sendall(b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort"); c.close(); return
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    protocol = b"Sec-WebSocket-Protocol: chat\r\n" if b"chat" in head else b""
    def frame(op, data):
        n = len(data)
        size = bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n) if n < 65536 else b"\x7f" + struct.pack(">Q", n)
        return bytes([0x80 | op]) + size + data
    # The first message leaves with the head.
    c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + protocol + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame(1, b"hello"))
    f = c.makefile("rb")
    while True:
        h = f.read(2)
        if len(h) < 2: break
        n = h[1] & 127
        if n == 126: n = struct.unpack(">H", f.read(2))[0]
        elif n == 127: n = struct.unpack(">Q", f.read(8))[0]
        mask = f.read(4); data = f.read(n)
        data = bytes(a ^ b for a, b in zip(data, (mask * (n // 4 + 1))[:n])) if n < 100000 else (int.from_bytes(data, "big") ^ int.from_bytes((mask * (n // 4 + 1))[:n], "big")).to_bytes(n, "big")
        c.sendall(frame(h[0] & 15, data))
        if h[0] & 15 == 8: break
    c.close()

ODD = {
    "reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nhi",
    "coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "status": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "switch": b"HTTP/1.1 101 Switching\r\n\r\n",
    "empty": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
}

def raw(c):
    """Answers with the head it got, byte for byte, then what the path asks for."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = c.recv(65536)
        if not data: return
        head += data
    line = head.split(b"\r\n")[0]
    if b"/tcp" in line:
        c.sendall(b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        rest = head.split(b"\r\n\r\n", 1)[1]; size = len(rest)
        while (data := c.recv(65536)): size += len(data)
        c.sendall(b"after the end: %d" % size)
    elif b"/garbage" in line: c.sendall(b"SSH-2.0-x\r\n")
    elif b"/smuggle" in line: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc")
    elif b"/ten" in line: c.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    elif b"/odd-" in line: c.sendall(ODD[line.split(b"/odd-")[1].split()[0].decode()])
    elif b"/reset" in line: c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif b"/huge" in line: c.sendall(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * 100000 + b"\r\n\r\n")
    elif b"/continue" in line:
        c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"); body = c.recv(100)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    else: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(head) + head)
    c.close()

def listen(port, handle):
    s = socket.create_server(("127.0.0.1", port), backlog=512)
    def serve():
        while True:
            c, _ = s.accept()
            threading.Thread(target=handle, args=(c,), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
server = Server(("127.0.0.1", 3000), Handler)
listen(3001, websocket); listen(3002, raw)
print("up", flush=True)
server.serve_forever()
