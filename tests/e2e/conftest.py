"""A real program on a real model: DSCTL_PROGRAM and DSCTL_TEST_MODEL (SmolLM2-135M-Instruct) say
which. Every test gets a registry of its own session and a server on a free port."""

import json
import os
import pathlib
import re
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

MODEL = "smollm2"


def required_path(variable):
    path = os.environ.get(variable)
    if not path:
        pytest.exit(f"{variable} is not set", returncode=2)
    return str(pathlib.Path(path).resolve())


PROGRAM = required_path("DSCTL_PROGRAM")
MODEL_FILE = required_path("DSCTL_TEST_MODEL")


class Server:
    """`dsctl serve` on a free port, stopped by SIGTERM."""

    def __init__(self, env, *arguments):
        self.log_path = pathlib.Path(env["HOME"]) / f"serve-{os.urandom(4).hex()}.log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--port", "0", *arguments],
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on (http://127\.0\.0\.1:(\d+))\n", line)
        assert match, f"{line!r}\n{self.log_path.read_text()}"
        self.url = match.group(1)
        self.port = int(match.group(2))

    def request(self, method, path, body=None):
        """Status, headers and parsed body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, headers, content = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            status, headers, content = error.code, error.headers, error.read()
        try:
            return status, headers, json.loads(content)
        except ValueError:
            return status, headers, content.decode()

    def running(self):
        """Requests of loaded models that are being computed."""
        _, _, body = self.request("GET", "/api/ps")
        return sum(model["requests"]["running"] for model in body["models"])

    def engine_pids(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=25)
        finally:
            self.process.stdout.close()
            if self.process.poll() is None:
                self.process.kill()


@pytest.fixture(scope="session")
def env(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DSCTL_", "OLLAMA_", "XDG_"))
    }
    # A port where nothing listens: `run` must not find a server of the person who tests.
    variables.update(HOME=str(home), DSCTL_MODELS=str(home / "models"), DSCTL_HOST="127.0.0.1:9")
    modelfile = home / "Modelfile"
    modelfile.write_text(f"FROM {MODEL_FILE}\nPARAMETER num_ctx 2048\n")
    subprocess.run([PROGRAM, "create", MODEL, "-f", str(modelfile)], env=variables, check=True)
    return variables


@pytest.fixture
def serve(env):
    """Starts servers that are stopped after the test."""
    servers = []

    def start(*arguments):
        servers.append(Server(env, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(env):
    one = Server(env, "--num-parallel", "32")
    yield one
    assert one.stop() == 0, one.log_path.read_text()
