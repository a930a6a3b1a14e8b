"""Certificates for tests, made by OpenSSL: an authority of one's own, and leaves for names and URIs.

Keys are P-256, because a new one takes no time, and everything is good for two days unless a test asks for another
window. Files lie in the stage's folder and go with it.
"""

import random
import shutil
import subprocess

# Without a file of its own OpenSSL adds the extensions of an authority to each certificate.
CONFIG = "[req]\ndistinguished_name = subject\n[subject]\n"
DATABASE = """[ca]
default_ca = own
[own]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
[any]
commonName = supplied
"""


class Authority:
    """Signs leaves; `ca` is the file that trusts them."""

    def __init__(self, stage, name="authority"):
        if not shutil.which("openssl"):
            raise FileNotFoundError("openssl is not installed (Debian: apt-get install openssl)")
        self.stage, self.name = stage, name
        self.ca, self.key = self._make(name, ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"])

    def leaf(self, name, *alternatives, window=None):
        """(certificate, key): files for an owner whose names are `DNS:…`, `IP:…` or `URI:…`.

        `window` is (from, until), as in `20200101000000Z`.
        """
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            "extendedKeyUsage=serverAuth,clientAuth",
            f"subjectAltName={','.join(alternatives)}",
        ]
        if window:
            return self._sign(name, extensions, window)
        return self._make(name, extensions, signed=True)

    def _sign(self, name, extensions, window):
        """`openssl req` knows days from now alone; `openssl ca` takes dates, and wants a database."""
        cert, key, request = (self.stage.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        self.stage.write("index.txt", "")
        self.stage.write("serial", f"{random.randrange(1 << 63, 1 << 64):X}\n")
        settings = "\n".join(extensions)
        config = self.stage.write(f"{name}.cnf", f"{CONFIG}{DATABASE.format(folder=self.stage.folder)}[leaf]\n{settings}\n")
        argv = ["openssl", "req", "-new", "-config", config, "-subj", f"/CN={name}", "-newkey", "ec"]
        run([*argv, "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request])
        argv = ["openssl", "ca", "-batch", "-notext", "-config", config, "-extensions", "leaf", "-in", request, "-out", cert]
        run([*argv, "-cert", self.ca, "-keyfile", self.key, "-startdate", window[0], "-enddate", window[1]])
        return cert, key

    def _make(self, name, extensions, signed=False):
        config = self.stage.write("openssl.cnf", CONFIG)
        cert, key = self.stage.folder / f"{name}.pem", self.stage.folder / f"{name}.key"
        argv = ["openssl", "req", "-x509", "-config", config, "-days", "2", "-subj", f"/CN={name}", "-sha256"]
        argv += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert]
        if signed:
            argv += ["-CA", self.ca, "-CAkey", self.key]
        for extension in extensions:
            argv += ["-addext", extension]
        run(argv)
        return cert, key


def run(argv):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=30)
    if p.returncode != 0:
        raise RuntimeError(f"openssl made no certificate: {p.stderr}")
