"""One package per kind of PBX, each with a protocol, a translation and a connector."""
