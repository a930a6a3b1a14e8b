"""An image of other people's clients, each of which calls by name as it would anywhere.

There is no registry to take images from, so the programs of this machine are put into an empty one, with the libraries that
they are linked with: curl, Python and Node with glibc's resolver, and a C program with musl's, which Alpine images have.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# getaddrinfo without a family asks for A and AAAA at once, and an error of either is an error of the name.
MUSL = r"""
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    int error = getaddrinfo(argv[1], "80", &hints, &found);
    if (error) { fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error)); return 6; }
    for (; found; found = found->ai_next) {
        int s = socket(found->ai_family, SOCK_STREAM, 0);
        if (connect(s, found->ai_addr, found->ai_addrlen)) { close(s); continue; }
        char request[512], answer[4096];
        int n = snprintf(request, sizeof request, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", argv[1]);
        if (write(s, request, n) != n) return 7;
        while ((n = read(s, answer, sizeof answer)) > 0) fwrite(answer, 1, n, stdout);
        return 0;
    }
    perror("connect");
    return 7;
}
"""

PYTHON = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
NODE = """require('http').get(process.argv[1], answer => answer.pipe(process.stdout)).on('error', e => { console.error(e.message); process.exit(1) })"""


def commands(url):
    """What each client is run as, in the image, to get a URL; by what it is."""
    name = url.removeprefix("http://").rstrip("/")
    return {
        "curl": [shutil.which("curl"), "-sS", "--max-time", "10", url],
        "Python": [os.path.realpath(sys.executable), "-S", "-c", PYTHON, url],
        "Node": [os.path.realpath(shutil.which("node")), "-e", NODE, url],
        "musl": ["/musl-client", name],
    }


def folder(into):
    """Fills a folder with what an image of them holds, and a Dockerfile."""
    into = Path(into)
    root = into / "root"
    for program in (shutil.which("curl"), os.path.realpath(sys.executable), os.path.realpath(shutil.which("node"))):
        add(root, program)
    library = sysconfig.get_paths()["stdlib"]
    unwanted = shutil.ignore_patterns("test*", "site-packages", "dist-packages", "__pycache__", "config-*", "idlelib", "tkinter", "ensurepip", "lib2to3", "*.a")
    shutil.copytree(library, inside(root, library), ignore=unwanted)
    for extension in Path(library, "lib-dynload").glob("*.so"):
        for needed in libraries(extension):
            copy(root, needed)
    source = into / "client.c"
    source.write_text(MUSL)
    subprocess.run(["musl-gcc", "-static", "-O1", "-o", root / "musl-client", source], check=True)
    (into / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")


def add(root, program):
    copy(root, program)
    for needed in libraries(program):
        copy(root, needed)


def libraries(program):
    """The libraries that a program is linked with, the loader among them."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    words = (word for line in told.splitlines() for word in line.split())
    return {word for word in words if word.startswith("/")}


def copy(root, path):
    place = inside(root, path)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), place)


def inside(root, path):
    return root / str(path).lstrip("/")
