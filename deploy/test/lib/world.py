"""What the scripts here share: collectors and a Prometheus of their own, in one folder and on free ports, all ended with it."""

import concurrent.futures
import http.client
import json
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

EVERY_SECOND = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}}

# Fails or slows down what a collector syncs; both while the file that FAULT_FILE names is there.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    const char *fault = getenv("FAULT_FILE");
    if (fault && access(fault, F_OK) == 0) {
        if (strstr(fault, "slow")) usleep(400000);
        else { errno = EIO; return -1; }
    }
    return real(fd);
}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds} s")
        time.sleep(0.1)
    return found


class World:
    """A folder, and all that was started in it."""

    def __init__(self, program):
        # Who is asked to end ends what it started as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="alerts-"))
        self.program = pathlib.Path(program).resolve()
        self.processes, self.mounts, self.collectors = [], [], []
        (self.dir / "shim.c").write_text(SHIM)
        self.shim = self.dir / "shim.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", self.shim, self.dir / "shim.c", "-ldl"], check=True)

    def collector(self, name, *settings, **more):
        collector = Collector(self, name, *settings, **more)
        self.collectors.append(collector)
        return collector

    def small_disk(self, at, size):
        at.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], check=True)
        self.mounts.append(at)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for at in self.mounts:
            subprocess.run(["umount", "--lazy", at], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


class Collector:
    """A collector with a fault of its own, on ports that it keeps when it is started again."""

    def __init__(self, world, name, settings=(), program=None, descriptors=None, shim=None, stderr=None):
        self.world, self.name = world, name
        self.dir = world.dir / name
        self.dir.mkdir(exist_ok=True)
        self.api, self.admin = free_port(), free_port()
        self.settings = [f"CATCHMENT_{key}={value}" for key, value in settings]
        self.program, self.descriptors, self.shim, self.stderr = program or world.program, descriptors, shim, stderr
        self.start()

    @property
    def data(self):
        return self.dir / "data"

    @property
    def fault(self):
        return self.dir / f"fault-{self.shim}"

    def start(self):
        def limit():
            if self.descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))

        environment = dict(setting.split("=", 1) for setting in self.settings)
        if self.shim:
            environment |= {"LD_PRELOAD": str(self.world.shim), "FAULT_FILE": str(self.fault)}
        log = open(self.dir / "log", "ab")
        arguments = ["serve", "--listen", f"127.0.0.1:{self.api}", "--admin-listen", f"127.0.0.1:{self.admin}"]
        self.process = subprocess.Popen(
            [self.program, *arguments, "--data-dir", self.data], cwd=self.dir, env={"PATH": "/usr/bin:/bin", **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=self.stderr or log, preexec_fn=limit)
        self.world.processes.append(self.process)
        wait(f"{self.name} is ready", self.is_ready)
        self.token = (self.data / "admin.token").read_text().strip()

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {(self.dir / 'log').read_text()[-2000:]}")
        try:
            return self.asked(self.admin, "GET", "/readyz")[0] == 200
        except OSError:
            return False

    def asked(self, port, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    def post(self, path, body, token=None, **headers):
        headers = {"authorization": f"Bearer {token or self.token}", **headers}
        return self.asked(self.api, "POST", path, body, headers)

    def sensor(self, name="roof"):
        status, text = self.post("/api/v1/sensor", json.dumps({"name": name}))
        assert status == 201, text
        return json.loads(text)["token"]

    def send(self, token, lines, **headers):
        return self.post("/api/v1/events", lines, token, **{"content-type": "application/x-ndjson", **headers})

    def kill(self, sign=signal.SIGKILL):
        self.process.send_signal(sign)
        if sign == signal.SIGKILL:
            self.process.wait()

    def open_request(self, token, announced, sent=b""):
        """A request whose body does not come to its end."""
        connection = socket.create_connection(("127.0.0.1", self.api))
        head = f"POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {announced}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        return connection


def many(count, act):
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        return list(pool.map(lambda n: act(n), range(count)))


class Prometheus:
    def __init__(self, world, name, config):
        self.port = free_port()
        folder = world.dir / name
        folder.mkdir()
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(folder / "log", "wb"))
        world.processes.append(process)
        wait("Prometheus is ready", self.is_ready)

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready").status == 200
        except OSError:
            return False

    def asked(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}"
        return json.load(urllib.request.urlopen(url))["data"]["result"]

    def firing(self):
        """Each alert that fires, with the instances it fires for."""
        found = {}
        for sample in self.asked("/api/v1/query", query='ALERTS{alertstate="firing"}'):
            labels = sample["metric"]
            found.setdefault(labels["alertname"], set()).add(labels.get("instance", ""))
        return found
