"""Sans-I/O framers: they cut byte streams into frames and know neither sockets nor time nor protocols' meaning."""
