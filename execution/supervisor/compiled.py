"""Compiles the supervisor's modules, for bootstrap.py and compile.py."""


def compiled(packed):
    """Returns the name of each module, and its code, or for later its file name and source. The packed arguments, which Go's
    pack has made, are the names of the modules that load.py leaves for later, and then the name, the file name and the
    source of each module, in load order."""
    import binascii
    import zlib

    later, *texts = zlib.decompress(binascii.a2b_base64("".join(packed))).decode().split("\0")
    modules = zip(texts[0::3], texts[1::3], texts[2::3])
    return [
        (name, (file, text) if name in later.split() else compile(text, file, "exec")) for name, file, text in modules
    ]
