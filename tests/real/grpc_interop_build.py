"""Builds gRPC's interoperability client and server into the cache, once.

Debian ships grpc-go's library, and leaves the interoperability programs out of it; they are in the source package.
The library, their sources and freshly made stubs are laid out as one GOPATH and built there. The server is made to
listen on loopback only.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile

from stage import cache

PACKAGES = "golang-go golang-google-grpc-dev golang-golang-x-oauth2-google-dev protoc-gen-go-1-3 protobuf-compiler"
GOCODE = pathlib.Path("/usr/share/gocode")
GRPC = pathlib.Path("google.golang.org/grpc")
SOURCES = [pathlib.Path("/etc/apt/sources.list.d/debian.sources"), pathlib.Path("/etc/apt/sources.list")]
STAMP = "loopback only"


def build():
    """The folder with `client` and `server`; FileNotFoundError where they cannot be had."""
    folder = cache() / "grpc-interop"
    stamp = folder / "complete"
    if stamp.exists() and stamp.read_text() == STAMP:
        return folder
    if not all(map(shutil.which, ("go", "protoc", "protoc-gen-go"))) or not (GOCODE / "src" / GRPC).exists():
        raise FileNotFoundError(f"what builds the interop programs is not installed (Debian: apt-get install {PACKAGES})")
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        build_in(pathlib.Path(work), folder)
    stamp.write_text(STAMP)
    return folder


def build_in(work, folder):
    """Lays out the sources in `work` and puts the programs into `folder`."""
    source = work / "src"
    shutil.copytree(GOCODE / "src" / GRPC, source / GRPC)
    interop = source / GRPC / "interop"
    unpack_interop(fetch_source(work), interop)
    for stub in (interop / "grpc_testing").glob("*.pb.go"):
        stub.unlink()
    server = interop / "server/server.go"
    server.write_text(server.read_text().replace('":"+p', '"127.0.0.1:"+p'))
    run(["protoc", "--go_out=plugins=grpc:.", GRPC / "interop/grpc_testing/test.proto"], cwd=source)
    env = {"GO111MODULE": "off", "GOPATH": f"{work}:{GOCODE}", "GOCACHE": str(work / "cache"), "GOFLAGS": ""}
    run(["go", "build", "-o", f"{folder}/", GRPC / "interop/client", GRPC / "interop/server"], cwd=source, env=env)


def fetch_source(work):
    """The archive with grpc-go's sources, by apt; its own lists, so that the machine's stay as they are."""
    parts, lists, archives = work / "parts", work / "lists/partial", work / "archives/partial"
    for needed in (parts, lists, archives):
        needed.mkdir(parents=True)
    for file in filter(pathlib.Path.exists, SOURCES):
        text = re.sub(r"^(Types: )?deb\b", r"\1deb-src", file.read_text(), flags=re.MULTILINE)
        (parts / file.name.replace("sources.list", "one.list")).write_text(text)
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": parts,
        "Dir::State::Lists": lists.parent,
        "Dir::Cache": work,
        # The file ends up in a folder that only its owner may look into.
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
    run([*apt, "update"], cwd=work)
    run([*apt, "source", "--download-only", "golang-google-grpc"], cwd=work)
    (archive,) = work.glob("golang-google-grpc_*.orig.tar.*")
    return archive


def unpack_interop(archive, to):
    """The folder `interop` of the archive, and nothing else."""
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar.getmembers() if m.name.split("/")[1:2] == ["interop"] and (m.isfile() or m.isdir())]
        for member in wanted:
            # Its place in the archive less the two outer folders.
            member.name = "/".join(member.name.split("/")[2:]) or "."
        tar.extractall(to, wanted)


def run(argv, cwd, env=None):
    argv = [str(a) for a in argv]
    p = subprocess.run(argv, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=600)
    if p.returncode != 0:
        raise FileNotFoundError(f"cannot build the interop programs: {' '.join(argv[:3])}: {(p.stdout + p.stderr)[-600:]}")


def listens(port):
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
