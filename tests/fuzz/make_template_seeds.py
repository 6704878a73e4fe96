"""make_template_seeds.py FOLDER: the templates of the oracle test, one a file."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "oracle"))

from _chat_template_cases import cases
from _own_templates import OWN_TEMPLATES


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sources = [source for source, _ in cases()]
    for i, source in enumerate([*OWN_TEMPLATES.values(), *sources]):
        (folder / f"{i}.jinja").write_bytes(source.encode(errors="surrogatepass"))


if __name__ == "__main__":
    main()
