"""Reads Cookie headers as Python's frameworks do: one a line in hex, one line of JSON each.

    read.py               every parser's pairs, {"parser": [["name", "value"], ...]} with the strings in hex
    read.py set           Set-Cookie fields, as http.cookies reads them
    read.py corpus DIR    prints, in hex, the headers in the tests of the packages unpacked in DIR
"""

import ast
import json
import pathlib
import sys
import warnings
from http.cookies import SimpleCookie


def hexed(text):
    return text.encode("utf-8", "surrogateescape").hex()


def parsers():
    from django.http.cookie import parse_cookie as django
    from starlette.requests import cookie_parser as starlette
    from werkzeug.http import parse_cookie as werkzeug

    def http_cookies(raw):
        cookies = SimpleCookie()
        cookies.load(raw.decode("latin-1"))
        return [(name, morsel.value) for name, morsel in cookies.items()]

    def as_wsgi(raw):
        return raw.decode("latin-1")

    return {
        "http.cookies": http_cookies,
        # As Django's WSGIRequest takes the header out of the environment.
        "django": lambda raw: django(raw.decode("utf-8", "replace")).items(),
        "starlette": lambda raw: starlette(as_wsgi(raw)).items(),
        "werkzeug": lambda raw: werkzeug({"HTTP_COOKIE": as_wsgi(raw)}).items(multi=True),
    }


def read_requests(lines):
    def pairs(parse, raw):
        try:
            return [[hexed(name), hexed(value)] for name, value in parse(raw)]
        except Exception:  # The app answers such a request with an error: it has read no cookie.
            return []

    found = parsers().items()
    for line in lines:
        raw = bytes.fromhex(line)
        read = {name: pairs(parse, raw) for name, parse in found}
        print(json.dumps(read, separators=(",", ":")))


def read_set_cookies(lines):
    for line in lines:
        cookies = SimpleCookie()
        try:
            cookies.load(bytes.fromhex(line).decode("latin-1"))
        except Exception:
            pass
        read = [
            {
                "name": hexed(name),
                # As it was sent: what a browser sends back.
                "value": hexed(morsel.coded_value),
                "path": hexed(morsel["path"]),
                "domain": hexed(morsel["domain"]),
                "maxAge": hexed(morsel["max-age"]),
            }
            for name, morsel in cookies.items()
        ]
        print(json.dumps({"http.cookies": read}))


def texts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            value = node.value
            yield value if isinstance(value, bytes) else value.encode("utf-8", "replace")


def print_corpus(folder):
    seen = set()
    for path in sorted(pathlib.Path(folder).glob("*/tests/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and "cookie" in node.name:
                seen.update(text for text in texts(node) if b"=" in text and len(text) < 2000)
    for text in sorted(seen):
        print(text.hex())


def main():
    warnings.simplefilter("ignore")
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode == "corpus":
        print_corpus(sys.argv[2])
    elif mode == "set":
        read_set_cookies(sys.stdin)
    else:
        read_requests(sys.stdin)


main()
