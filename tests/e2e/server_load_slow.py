"""How fast the server answers many clients at once, on a fake model: the figures of server_load.py as limits."""

import time

from _http_load import Stream, chat_request, fake_server, percentile, wait_for

N_RUNS = 5


def median(values):
    return percentile(values, 0.5)


def first_bytes_of_a_thousand_streams():
    """The best of several runs: neighbours on the machine only add to it."""
    n, tokens = 1000, 20
    shares = []
    for _ in range(N_RUNS):
        with fake_server(max_concurrent=n, max_queue=n, step_us=20000) as server:
            streams = [Stream(server.port) for _ in range(n)]
            for stream in streams:
                stream.send(chat_request(stream=True, max_tokens=tokens))
            wait_for(streams)
            assert all(stream.complete for stream in streams)
            shares.append(percentile([stream.first_byte for stream in streams], 0.99))
            for stream in streams:
                stream.close()
    print(f"p99 of the first byte, {n} streams: {', '.join(f'{s:.3f}' for s in shares)} s")
    assert min(shares) <= 0.25, shares


def health_beside_slow_clients(seconds=20):
    """500 clients that send a byte of their header now and then, as slowloris does; each that is cut comes again."""
    with fake_server() as server:
        slow = [Stream(server.port) for _ in range(500)]
        for stream in slow:
            stream.send(b"GET /health HTTP/1.1\r\nX-")
        times = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for i, stream in enumerate(slow):
                try:
                    stream.socket.send(b"a")
                    if stream.take():
                        raise ConnectionError
                except ConnectionError:
                    stream.close()
                    slow[i] = Stream(server.port)
                    slow[i].send(b"GET /health HTTP/1.1\r\nX-")
            for _ in range(20):
                start = time.monotonic()
                assert server.get("/health")[0] == 200
                times.append(time.monotonic() - start)
                time.sleep(0.01)
        for stream in slow:
            stream.close()
    share = percentile(times, 0.99)
    print(f"/health beside 500 slow clients for {seconds} s: {len(times)} times, p99 {share * 1000:.1f} ms")
    assert share <= 0.1, share


def a_gone_client_frees_its_place():
    """Within one step, here of 50 ms: what waits behind it begins."""
    waits = []
    for _ in range(N_RUNS):
        with fake_server(max_concurrent=1, step_us=50000) as server:
            first, second = Stream(server.port), Stream(server.port)
            first.send(chat_request(stream=True, max_tokens=4000))
            wait_for([first], until=lambda stream: b"data:" in stream.received)
            second.send(chat_request(stream=True, max_tokens=2))
            time.sleep(0.2)
            gone = time.monotonic()
            first.close()
            wait_for([second])
            waits.append(second.ended_at - gone)
            second.close()
    print(f"from a disconnect to the end of the next answer of 2 tokens: {median(waits):.3f} s")
    assert median(waits) <= 0.05 * 4 + 0.1, waits  # the step that runs, prefill, 2 tokens


if __name__ == "__main__":
    first_bytes_of_a_thousand_streams()
    health_beside_slow_clients()
    a_gone_client_frees_its_place()
