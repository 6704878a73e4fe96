"""optiq chat as a user runs it: on a terminal, piped, with a model of its own
(tiny-qwen3.5) and with a server."""

import json
import stat
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _chat_server import ChatServer
from _support import BIN, MODEL, optiq, scratch
from _terminal import Terminal

ROWS = [json.loads(r) for r in (MODEL / "eval_arithmetic.jsonl").open()]
QUESTION, ANSWER = ROWS[0]["question"], ROWS[0]["answer"]
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


def chat(*arguments, folder, **options):
    return Terminal(BIN, "chat", *arguments, "--history", folder / "state" / "history", **options)


def leave(terminal):
    terminal.wait_for("> ")
    terminal.press(CTRL_D)
    assert terminal.end() == 0


def answers_piped_questions(folder):
    out, _ = optiq("chat", MODEL, "--temp", "0", stdin=QUESTION + "\n")
    assert out == ANSWER + "\n", out
    saved = folder / "saved.json"
    out, _ = optiq("chat", MODEL, "--temp", "0", "--system", "Be brief.",
                   stdin=f'one \\\ntwo\n"""\nthree\nfour"""\n/save {saved}\n')
    messages = json.loads(saved.read_text())
    assert [m["role"] for m in messages] == ["system"] + 2 * ["user", "assistant"]
    assert [m["content"] for m in messages[:4:2]] + [messages[3]["content"]] == [
        "Be brief.", messages[2]["content"], "\nthree\nfour"], messages
    assert messages[1]["content"] == "one \ntwo"
    assert messages[2]["content"] + "\n" + messages[4]["content"] + "\n" == out


def keeps_the_conversation(folder):
    with ChatServer() as server:
        out, _ = optiq("chat", server.url, stdin="a\nb\n/clear\nc\n/system s\nd\n/quit\ne\n")
        assert out == "".join(f"you said {c}\n" for c in "abcd"), out
        contents = [[m["content"] for m in body["messages"]] for body, _ in server.requests]
        assert contents == [["a"], ["a", "you said a", "b"], ["c"], ["s", "d"]], contents


def sends_what_was_asked_for(folder):
    with ChatServer() as server:
        optiq("chat", server.url, stdin="x", env={"OPTIQ_API_KEY": "k1"})
        optiq("chat", server.url + "/v1/", "--api-key", "k2", "--model-id", "m", "--temp", "0.5",
              "--top-k", "3", "--max-tokens", "7", "--seed", "9", stdin="x")
        optiq("chat", server.url, "--adapter", "math", "--adapter", "b*0.5", stdin="x")
        (plain, key), (full, other_key), (adapted, _) = server.requests
        assert adapted == {**plain, "model": "echo:math+b*0.5"}, adapted
        assert plain == {"model": "echo", "stream": True,
                         "messages": [{"role": "user", "content": "x"}]}, plain
        assert (key, other_key) == ("Bearer k1", "Bearer k2")
        assert full == {**plain, "model": "m", "temperature": 0.5, "top_k": 3, "max_tokens": 7,
                        "seed": 9}, full


def reaches_a_unix_socket(folder):
    with ChatServer(socket=folder / "socket") as server:
        out, _ = optiq("chat", server.url, stdin="hi")
        assert out == "you said hi\n", out


def talks_with_our_server(folder):
    command = [BIN, "serve", MODEL, "--unix-socket", folder / "socket", "--api-key", "k", "--temp",
               "0"]
    server = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    try:
        while "Ask it" not in server.stdout.readline():
            pass
        out, _ = optiq("chat", f"unix:{folder / 'socket'}", "--api-key", "k", stdin=QUESTION)
        assert out == ANSWER + "\n", out
        optiq("chat", f"unix:{folder / 'socket'}", stdin=QUESTION, expect=8)
    finally:
        server.terminate()
        server.wait(timeout=30)


def says_what_is_wrong(folder):
    with ChatServer() as server:
        _, err = optiq("chat", server.url, stdin="refuse", expect=8)
        assert "answers 401: no \\x1b[2J key" in err, err
        _, err = optiq("chat", server.url, stdin="break", expect=6)
        _, err = optiq("chat", server.url, stdin="redirect", expect=2)
        assert "answers 307" in err and len(server.requests) == 3, err
        url = server.url
        _, err = optiq("chat", url, "--device", "cpu", stdin="x", expect=2)
        assert "--device goes only with" in err, err
    _, err = optiq("chat", url, stdin="x", expect=6)
    assert "Is a server there?" in err, err
    _, err = optiq("chat", MODEL, "--model-id", "m", stdin="x", expect=2)
    assert "--model-id goes only with" in err, err
    _, err = optiq("chat", MODEL, stdin="/nonsense", expect=2)
    assert "/help" in err, err


def talks_on_a_terminal(folder):
    terminal = chat(MODEL, "--temp", "0", folder=folder)
    terminal.wait_for("Ctrl-D ends.")
    terminal.wait_for("> ")
    terminal.press(QUESTION + "\n")
    terminal.wait_for(ANSWER)
    terminal.wait_for("> ")
    terminal.press("/help\n")
    terminal.wait_for("Ctrl-C stops an answer.")
    leave(terminal)
    history = folder / "state" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    again = chat(MODEL, "--temp", "0", folder=folder)
    again.wait_for("> ")
    again.press(UP + UP + "\n")  # the question of last time
    again.wait_for(ANSWER)
    leave(again)
    ahead = chat(MODEL, "--temp", "0", folder=folder)
    ahead.wait_for("> ")
    ahead.press(QUESTION + "\n")
    ahead.wait_for("\n")
    ahead.press(CTRL_D)  # while nobody reads, so that it ends the next line
    ahead.wait_for(ANSWER)
    assert ahead.end() == 0


def control_c_stops_the_answer(folder):
    with ChatServer() as server:
        terminal = chat(server.url, folder=folder)
        terminal.wait_for("> ")
        terminal.press("endless\n")
        terminal.wait_for("on and on and")
        terminal.press(CTRL_C)
        terminal.wait_for("(stopped)")
        assert server.gone.wait(10)
        terminal.wait_for("> ")
        terminal.press(CTRL_C * 40)  # however often
        terminal.press("half a message" + CTRL_C)
        terminal.wait_for("> ")
        terminal.press("naïve €\n")
        terminal.wait_for("you said naïve €")
        terminal.wait_for("> ")
        terminal.press("refuse\n")  # an error ends no chat
        terminal.wait_for("answers 401")
        terminal.wait_for("> ")
        terminal.press("long\n")
        terminal.wait_for("(cut off")
        leave(terminal)
        contents = [m["content"] for m in server.requests[-1][0]["messages"]]
        assert contents[0] == "endless" and contents[1].startswith("on and"), contents
        assert contents[2:] == ["naïve €", "you said naïve €", "long"], contents


def dims_reasoning_and_escapes_controls(folder):
    with ChatServer() as server:
        terminal = chat(server.url, folder=folder)
        terminal.wait_for("> ")
        terminal.press("think\n")
        terminal.wait_for("\x1b[2mhmm\x1b[22m\n\nyou said think")
        terminal.wait_for("> ")
        terminal.press("hostile\n")
        terminal.wait_for("\\x1b[2Jowned")
        leave(terminal)
        assert "\x1b[2J" not in terminal.text
        out, _ = optiq("chat", server.url, stdin="think")
        assert out == "you said think\n", out


if __name__ == "__main__":
    for check in (answers_piped_questions, keeps_the_conversation, sends_what_was_asked_for,
                  reaches_a_unix_socket, talks_with_our_server, says_what_is_wrong,
                  talks_on_a_terminal, control_c_stops_the_answer,
                  dims_reasoning_and_escapes_controls):
        with scratch() as folder:
            check(Path(folder))
        print("ok", check.__name__)
