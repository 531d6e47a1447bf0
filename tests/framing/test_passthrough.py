from gateway.framing.passthrough import PassthroughFramer


def test_what_one_read_brought_is_a_frame() -> None:
    framer = PassthroughFramer(8)
    assert framer.feed(b"abc") == [b"abc"]
    assert framer.feed(b"de") == [b"de"]


def test_a_read_over_the_maximum_comes_in_pieces() -> None:
    assert PassthroughFramer(4).feed(b"123456789") == [b"1234", b"5678", b"9"]
