from gateway.framing.fixed import FixedFramer


def test_every_so_many_bytes_are_a_frame() -> None:
    framer = FixedFramer(4)
    assert framer.feed(b"aaaabbbbcc") == [b"aaaa", b"bbbb"]
    assert framer.pending == 2
    assert framer.feed(b"c") == []
    assert framer.feed(b"cdd") == [b"cccc"]
    assert framer.pending == 2
