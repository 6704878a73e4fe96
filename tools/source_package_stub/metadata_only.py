"""A build backend that only names the package.

`pip download` of a source package asks its backend for metadata; numpy's runs a
full Meson configuration for that. The modules beside this one stand in for such
backends, found first on PYTHONPATH, and answer with name and version, read from
PKG-INFO beside the package's own sources.
"""

import pathlib


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    fields = {}
    for line in pathlib.Path("PKG-INFO").read_text().splitlines():
        if not line:
            break
        key, separator, value = line.partition(": ")
        if separator:
            fields.setdefault(key, value)
    name = f"{fields['Name']}-{fields['Version']}.dist-info"
    folder = pathlib.Path(metadata_directory, name)
    folder.mkdir()
    text = "".join(f"{key}: {fields[key]}\n" for key in ("Metadata-Version", "Name", "Version"))
    (folder / "METADATA").write_text(text)
    return name
