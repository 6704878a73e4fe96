"""Many clients at once, slow, rude and hostile ones, against the whole server
on a fake model: everything is answered, and nothing is left behind. Figures of
time are printed; server_load_slow.py asserts them."""

import time

from _http_load import Stream, chat_request, fake_server, percentile, wait_for

MEGABYTE = 1 << 20
MORE = "<more>"  # the token that answers the prompt "#", without end


def a_thousand_streams_complete():
    n, tokens = 1000, 20
    with fake_server(max_concurrent=n, max_queue=n, step_us=20000) as server:
        before = server.rss()
        streams = [Stream(server.port) for _ in range(n)]
        start = time.monotonic()
        for stream in streams:
            stream.send(chat_request(stream=True, max_tokens=tokens))
        wait_for(streams)
        grown = server.rss() - before
        seconds = time.monotonic() - start
        assert all(stream.status == 200 and stream.complete for stream in streams)
        texts = {stream.text() for stream in streams}
        assert texts == {MORE * tokens}, texts
        firsts = [stream.first_byte for stream in streams]
        print(f"{n} streams of {tokens} tokens: all complete in {seconds:.2f} s, first byte p50 "
              f"{percentile(firsts, .5):.3f} s, p99 {percentile(firsts, .99):.3f} s, RSS + {grown / MEGABYTE:.1f} MB")
        assert grown <= 50 * MEGABYTE, grown
        for stream in streams:
            stream.close()


def slow_clients_are_left_and_others_served():
    with fake_server(header_timeout_ms=1500) as server:
        slow = [Stream(server.port) for _ in range(500)]
        for stream in slow:
            stream.send(b"GET /health HTTP/1.1\r\nX-")
        times = []
        while time.monotonic() - slow[-1].sent_at < 1.2:
            for stream in slow[::50]:
                stream.socket.send(b"a")
            start = time.monotonic()
            assert server.get("/health")[0] == 200
            times.append(time.monotonic() - start)
        print(f"beside 500 slow clients: {len(times)} x /health, p99 {percentile(times, .99) * 1000:.1f} ms")
        wait_for(slow, limit=30)
        assert {stream.status for stream in slow} == {408}
        for stream in slow:
            stream.close()
        assert server.get("/health")[0] == 200


def storm(port, n):
    """Clients that leave at every point of a request."""
    request = chat_request(stream=True, max_tokens=2000)
    prompt = chat_request("Hello " * 400 + "#", stream=True, max_tokens=2000)
    streams = [Stream(port) for _ in range(n)]
    started = []
    for i, stream in enumerate(streams):
        match i % 6:
            case 0:
                stream.send(request[:30])  # within the header
            case 1:
                stream.send(request[:-10])  # within the body
            case 2:
                stream.send(prompt)  # during the prefill, or in the queue
            case 3:
                stream.send(request + request)  # with another behind it
            case 4:
                stream.send(request)
                started.append(stream)  # within the answer
            case 5:
                stream.send(b"GET / HTTP/1.1\r\nbroken\r\n\r\n")
    wait_for(started[:4], until=lambda stream: stream.received.count(b"data:") > 3)
    for stream in streams:
        stream.close()


def is_quiet(metrics):
    return not any(metrics[f"optiq_{name}"] for name in ("requests_running", "requests_waiting", "answers_open"))


def settle(server):
    deadline = time.monotonic() + 30
    while not is_quiet(metrics := server.metrics()):
        assert time.monotonic() < deadline, metrics
        time.sleep(0.05)
    return metrics


def held_bytes(metrics):
    """Of the K/V pool, what no kept prefix accounts for."""
    return metrics["optiq_kv_bytes"] - metrics["optiq_prefix_bytes"]


def a_storm_of_disconnects_leaves_nothing():
    with fake_server(step_us=1000, max_concurrent=16, max_queue=64) as server:
        files = server.n_files()
        storm(server.port, 300)  # fills what is kept for the next
        before = settle(server)
        rss = server.rss()
        for _ in range(5):
            storm(server.port, 300)
        after = settle(server)
        assert held_bytes(before) == held_bytes(after) == 0, (before, after)
        deadline = time.monotonic() + 10
        while server.n_files() > files and time.monotonic() < deadline:
            time.sleep(0.05)  # until those that linger are closed
        print(f"1500 disconnects: files {files} -> {server.n_files()}, "
              f"RSS {rss / MEGABYTE:.1f} -> {server.rss() / MEGABYTE:.1f} MB")
        assert server.n_files() <= files
        assert server.rss() - rss < 8 * MEGABYTE
        assert server.end()[0] == 0


def a_signal_ends_every_stream_well():
    n = 50
    with fake_server(step_us=20000, max_concurrent=30, max_queue=n, drain_ms=500) as server:
        streams = [Stream(server.port) for _ in range(n)]
        for stream in streams:
            stream.send(chat_request(stream=True, max_tokens=4000))
        wait_for(streams[:10], until=lambda stream: stream.received.count(b"data:") > 3)
        for stream in streams:
            stream.ended_at = None
        code, seconds = server.end()
        wait_for([stream for stream in streams if not stream.complete], limit=10)
        print(f"SIGTERM with {n} streams: exit {code} after {seconds:.2f} s")
        assert code == 0
        assert seconds < 10
        for stream in streams:
            assert stream.complete, stream.received[-300:]
            events = stream.events()
            assert events[-1] == "[DONE]" or "error" in events[-1], events[-2:]
            stream.close()


def running_out_of_files_is_survived():
    with fake_server(max_files=40) as server:
        streams = [Stream(server.port) for _ in range(80)]  # more than it may accept
        start = server.cpu_seconds()
        time.sleep(1)
        assert server.cpu_seconds() - start < 0.5  # it does not spin
        for stream in streams[:70]:
            stream.close()
        assert server.get("/health")[0] == 200
        for stream in streams[70:]:
            stream.send(chat_request(":", stream=True))
        wait_for(streams[70:])
        assert all(stream.complete for stream in streams[70:])
        for stream in streams[70:]:
            stream.close()


def what_is_within_the_grace_ends_whole():
    with fake_server(step_us=20000) as server:
        stream = Stream(server.port)
        stream.send(chat_request(stream=True, max_tokens=30))
        wait_for([stream], until=lambda stream: stream.received.count(b"data:") > 3)
        code, _ = server.end()
        wait_for([stream])
        assert code == 0 and stream.text() == MORE * 30
        stream.close()


if __name__ == "__main__":
    a_thousand_streams_complete()
    slow_clients_are_left_and_others_served()
    a_storm_of_disconnects_leaves_nothing()
    a_signal_ends_every_stream_well()
    running_out_of_files_is_survived()
    what_is_within_the_grace_ends_whole()
